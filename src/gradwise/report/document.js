"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
  const figures = [...document.querySelectorAll(".figure")];
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch ? false : "hover",
    // Named one by one: the default set can send a chart to a server.
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  for (const figure of figures) {
    const { data, layout, frames } = JSON.parse(figure.querySelector("script").textContent);
    layout.font = { ...layout.font, color: ink() };
    if (touch) layout.dragmode = false; // a swipe over a figure is meant for the page
    figure.textContent = "";
    Plotly.newPlot(figure, { data, layout, config, frames });
  }
  const repaint = (size) => figures.forEach((f) => Plotly.relayout(f, { "font.color": ink(), ...size }));
  dark.addEventListener("change", () => repaint({}));
  addEventListener("beforeprint", () => repaint({ width: 660, autosize: false }));
  addEventListener("afterprint", () => repaint({ width: undefined, autosize: true }));
})();
