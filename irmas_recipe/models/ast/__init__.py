"""AST, the Audio Spectrogram Transformer (Gong 2021): transformers' own model, with what training adds to it."""
