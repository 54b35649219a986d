"""AST's features in a batch, and what training changes in the model: a shorter input, patchout, a cheaper last layer."""

import copy

import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from irmas_recipe.models.ast import adaptation, features


@pytest.fixture
def small_ast():
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=1024
    )
    model = ASTForAudioClassification(config)
    torch.nn.init.normal_(model.audio_spectrogram_transformer.embeddings.position_embeddings)
    return model


@pytest.mark.parametrize(
    ("samples", "max_length"), [(48000, 298), (47999, 298), (20000, 298), (48000, 200), (160000, 1024)]
)
@pytest.mark.parametrize("do_normalize", [True, False])
def test_batched_features_equal_the_saved_extractors(samples, max_length, do_normalize):
    extractor = ASTFeatureExtractor(max_length=max_length, do_normalize=do_normalize)
    waveforms = 0.1 * torch.randn(3, samples, generator=torch.Generator().manual_seed(samples))
    waveforms[1] *= 1e-4
    waveforms[2] = 0.5  # a constant: nothing but DC
    ours = features.AstFeatures(extractor)(waveforms)
    theirs = extractor(list(waveforms.numpy()), sampling_rate=16000, return_tensors="pt")["input_values"]
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 1e-3


def test_features_are_refused_at_another_rate():
    with pytest.raises(ValueError, match="16000 Hz, not at 32000 Hz"):
        features.AstFeatures(ASTFeatureExtractor(sampling_rate=32000))


def test_3_seconds_are_298_frames_and_12_by_29_patches():
    assert features.frames_in(3.0) == 298
    assert adaptation.patch_grid(ASTConfig(max_length=298)) == (12, 29)
    assert adaptation.patch_grid(ASTConfig(max_length=1024)) == (12, 101)


def test_cropping_keeps_the_middle_columns_of_the_pretrained_grid(small_ast):
    before = small_ast.audio_spectrogram_transformer.embeddings.position_embeddings.detach().clone()
    adaptation.crop_to_frames(small_ast, 298)
    after = small_ast.audio_spectrogram_transformer.embeddings.position_embeddings
    assert after.shape == (1, 2 + 12 * 29, 16) and torch.equal(after[:, :2], before[:, :2])
    for row in (0, 5, 11):
        for column in (0, 14, 28):  # the authors start at 50 - 29 // 2 = 36 of 101 columns
            assert torch.equal(after[0, 2 + row * 29 + column], before[0, 2 + row * 101 + 36 + column])
    assert small_ast(torch.zeros(1, 298, 128)).logits.shape == (1, 2)


@pytest.mark.parametrize("frames", [1300, 10])
def test_a_window_that_the_checkpoint_cannot_take_is_refused(small_ast, frames):
    with pytest.raises(ValueError, match=f"16 to 1024 frames of 10 ms, not {frames}"):
        adaptation.crop_to_frames(small_ast, frames)


def test_patchout_drops_constant_counts_of_whole_rows_and_columns(small_ast):
    adaptation.crop_to_frames(small_ast, 298)
    adaptation.add_patchout(small_ast, columns=10, rows=3, tokens=7)
    embeddings = small_ast.audio_spectrogram_transformer.embeddings
    position = torch.arange(2 + 12 * 29).float()
    embeddings.position_embeddings.data = position[None, :, None].expand(1, -1, 16).clone()
    for parameter in (*embeddings.patch_embeddings.parameters(), embeddings.cls_token, embeddings.distillation_token):
        parameter.data.zero_()
    kept = [embeddings.train()(torch.zeros(2, 298, 128))[..., 0].round().long() for _ in range(2)]
    assert kept[0].shape == kept[1].shape == (2, 2 + (12 - 3) * (29 - 10) - 7)
    assert torch.equal(kept[0][0], kept[0][1]) and not torch.equal(kept[0], kept[1])
    patches = kept[0][0, 2:] - 2
    assert kept[0][0, :2].tolist() == [0, 1] and len(patches.unique()) == len(patches)
    assert len((patches // 29).unique()) == 9 and len((patches % 29).unique()) == 19
    assert embeddings.eval()(torch.zeros(1, 298, 128)).shape[1] == 2 + 12 * 29


def test_patchout_that_leaves_nothing_is_refused(small_ast):
    with pytest.raises(ValueError, match="patchout of 101 columns, 0 rows and 0 tokens leaves none of 101 x 12"):
        adaptation.add_patchout(small_ast, columns=101, rows=0, tokens=0)


def test_skipping_what_is_not_pooled_changes_neither_logits_nor_gradients(small_ast):
    adaptation.crop_to_frames(small_ast, 298)
    for parameter in small_ast.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    shortened = copy.deepcopy(small_ast)
    adaptation.compute_only_what_is_pooled(shortened)
    assert list(shortened.state_dict()) == list(small_ast.state_dict())
    inputs = torch.randn(2, 298, 128)
    for whole, skipping in ((small_ast, shortened), (small_ast.eval(), shortened.eval())):
        one, other = whole(inputs), skipping(inputs)
        assert torch.allclose(one.logits, other.logits, atol=1e-6)
    one.logits.square().sum().backward()
    other.logits.square().sum().backward()
    for (name, parameter), twin in zip(small_ast.named_parameters(), shortened.parameters(), strict=True):
        assert torch.allclose(parameter.grad, twin.grad, rtol=1e-3, atol=1e-6), name
    hidden = shortened(inputs, output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in hidden] == [350, 350, 2]


@pytest.mark.parametrize("bias", [True, False])
def test_fused_projections_change_neither_logits_nor_gradients_nor_what_is_saved(bias, tmp_path):
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=48, qkv_bias=bias
    )
    plain = ASTForAudioClassification(config).double().train()
    fused = copy.deepcopy(plain)
    adaptation.fuse_projections(fused)
    inputs = torch.randn(2, 48, 128, dtype=torch.float64)
    for model in (plain, fused):
        model(inputs).logits.square().sum().backward()
    torch.testing.assert_close(fused(inputs).logits, plain(inputs).logits)
    for (name, expected), found in zip(plain.named_parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)
    fused.save_pretrained(tmp_path)
    torch.testing.assert_close(
        ASTForAudioClassification.from_pretrained(tmp_path).double().eval()(inputs).logits, plain.eval()(inputs).logits
    )
