// A click in a track or on the axis plays from there, a key on a bar from its start; the playhead follows the player.
(() => {
  const clock = seconds => {
    const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
    return (parts[0] ? parts : parts.slice(1)).map((part, place) => place ? String(part).padStart(2, "0") : part).join(":");
  };
  const follow = (view, seconds) => {
    const axis = view.querySelector(".axis");
    view.style.setProperty("--at", seconds / Number(view.dataset.seconds));
    axis.setAttribute("aria-valuenow", Math.floor(seconds));
    axis.setAttribute("aria-valuetext", clock(seconds));
  };
  const jump = (view, seconds) => {
    const player = view.querySelector("audio");
    player.currentTime = Math.min(Math.max(seconds, 0), Number(view.dataset.seconds));
    follow(view, player.currentTime);
    player.play().catch(() => {});  // a file that cannot be played is told by its error event
  };
  document.addEventListener("click", event => {
    const line = event.target.closest(".view .track, .view .axis");
    if (!line) return;
    const view = line.closest(".view"), box = line.getBoundingClientRect();
    const byKey = event.detail === 0 && event.target.dataset.start;
    jump(view, byKey ? Number(byKey) : (event.clientX - box.left) / box.width * Number(view.dataset.seconds));
  });
  document.addEventListener("keydown", event => {
    const axis = event.target.closest?.(".view .axis");
    if (!axis || event.ctrlKey || event.altKey || event.metaKey) return;
    const view = axis.closest(".view"), player = view.querySelector("audio"), now = player.currentTime;
    const places = {
      ArrowRight: now + 5, ArrowUp: now + 5, ArrowLeft: now - 5, ArrowDown: now - 5,
      PageUp: now + 30, PageDown: now - 30, Home: 0, End: Number(view.dataset.seconds) - 5,
    };
    if (event.key in places) jump(view, places[event.key]);
    else if (event.key === " " || event.key === "Enter") player.paused ? jump(view, now) : player.pause();
    else return;
    event.preventDefault();
  });
  for (const name of ["timeupdate", "seeked"]) document.addEventListener(name, event => {
    const view = event.target.closest?.(".view");
    if (view) follow(view, event.target.currentTime);
  }, true);
})();
