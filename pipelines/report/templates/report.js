"use strict";
(() => {
  const sliders = JSON.parse(document.getElementById("sliders").textContent);
  const counted = (number) => number.toLocaleString("en");
  const figure = (value) => (Math.abs(value) >= 1000 ? counted(Math.round(value)) : String(Number(value.toPrecision(4)))).replace("-", "−");
  const length = (seconds) =>
    seconds < 120 ? `${seconds.toFixed(1)} s` : seconds < 7200 ? `${(seconds / 60).toFixed(1)} min`
      : `${(seconds / 3600).toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} h`;
  const bold = (text) => Object.assign(document.createElement("b"), { textContent: text });

  for (const input of document.querySelectorAll("input[data-slider]")) {
    const number = input.dataset.slider, its = sliders[number], side = input.dataset.side, start = Number(input.dataset.at);
    const score = input.closest(".score"), line = score.querySelector(`line[data-side="${side}"]`);
    const out = document.querySelector(`[data-out="${number}"]`), set = document.querySelector(`[data-set="${number}"]`);
    const column = score.querySelector("h3").textContent;
    input.parentElement.hidden = false;
    const show = () => {
      const at = Number(input.value), value = its.positions[at];
      const x = Math.min(Math.max(0, (value - its.low) / (its.high - its.low)), 1) * its.bins;
      line.classList.toggle("off", value < its.low || value > its.high);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      const limit = `${column} ${side === "min" ? "≥" : "≤"} ${figure(value)}`, more = its.clips[at] - its.clips[start];
      const change = at === start ? "" : ` (${more > 0 ? "+" : more < 0 ? "−" : "±"}${counted(Math.abs(more))})`;
      out.replaceChildren(bold(limit), " keeps ", bold(counted(its.clips[at])), ` clips${change}, ${length(its.seconds[at])}`);
      input.setAttribute("aria-valuetext", `${limit}: ${counted(its.clips[at])} clips`);
      set.textContent = input.dataset.before + (its.shares ? its.shares[at] : value) + input.dataset.after;
      set.closest(".command").hidden = at === start;
    };
    input.addEventListener("input", show);
    show();
  }

  const player = document.getElementById("player");
  if (player) {
    const video = player.querySelector("video"), words = player.querySelector("p");
    for (const button of document.querySelectorAll("button[data-clip]")) {
      button.addEventListener("click", () => {
        video.src = `clip/${button.dataset.clip}`;
        words.textContent = `${button.dataset.clip}: ${button.getAttribute("aria-label").replace(/^Play /, "")}`;
        player.showModal();
      });
    }
    player.addEventListener("close", () => { video.pause(); video.removeAttribute("src"); video.load(); });
    video.addEventListener("error", () => { if (video.getAttribute("src")) words.textContent += ". This browser cannot play it."; });
  }
})();
