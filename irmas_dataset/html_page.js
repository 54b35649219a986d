// One player plays at a time, and a player that cannot play its file says so.
document.addEventListener("play", event => {
  for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause();
}, true);
document.addEventListener("error", event => {
  const player = event.target;
  if (player.tagName !== "AUDIO" || player.nextElementSibling?.className === "silent-player") return;
  const words = document.createElement("p");
  words.className = "silent-player";
  words.textContent = "This file cannot be played here: it has been moved, or this browser cannot read its format.";
  player.after(words);
}, true);
