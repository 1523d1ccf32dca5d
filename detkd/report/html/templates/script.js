"use strict";
// Turns views of a picture that lie side by side, as on paper, into two that a divider parts.
for (const box of document.querySelectorAll(".compare")) {
  const frame = box.querySelector(".frame");
  const figures = [...frame.querySelectorAll("figure")];
  if (figures.length < 2) continue;

  const choose = (side, role) => {
    for (const figure of figures) figure.classList.toggle(side, figure.dataset.role === role);
  };
  const controls = document.createElement("div");
  controls.className = "controls";
  for (const side of ["left", "right"]) {
    const select = document.createElement("select");
    select.setAttribute("aria-label", side === "left" ? "view on the left" : "view on the right");
    for (const figure of figures) select.add(new Option(figure.dataset.role, figure.dataset.role));
    select.value = box.dataset[side];
    select.addEventListener("change", () => choose(side, select.value));
    choose(side, select.value);
    controls.append(select);
  }

  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 0;
  slider.max = 100;
  slider.step = 0.5;
  slider.value = 50;
  slider.setAttribute("aria-label", "where the right view begins");
  const divider = document.createElement("div");
  divider.className = "divider";
  const move = () => frame.style.setProperty("--at", `${slider.value}%`);
  slider.addEventListener("input", move);
  move();
  frame.append(slider, divider);
  if (figures.length > 2) box.insertBefore(controls, frame);
  box.classList.add("live");
}

// Paper shows everything.
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
