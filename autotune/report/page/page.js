// The charts take the page's colours, and take them again when these change.
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = () => (window.Bokeh ? Bokeh.index.roots.filter(view => "renderers" in view.model) : []);

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Paint every chart; `shades` are the colours of text, of grid lines, of frames.
function paint(shades) {
  for (const view of charts()) {
    const plot = view.model;
    plot.background_fill_color = plot.border_fill_color = null;
    plot.outline_line_color = shades.frame;
    for (const part of [...plot.below, ...plot.left, ...plot.center]) {
      for (const name of ["axis_label_text_color", "major_label_text_color", "group_text_color"]) {
        if (name in part) part[name] = shades.ink;
      }
      for (const name of ["axis_line_color", "major_tick_line_color"]) {
        if (name in part && part[name] !== null) part[name] = shades.frame;
      }
      if ("grid_line_color" in part && part.grid_line_color !== null) part.grid_line_color = shades.faint;
    }
    for (const renderer of plot.renderers) {
      if (!renderer.tags.includes("ink")) continue;
      for (const name of ["line_color", "fill_color"]) {
        const glyph = renderer.glyph;
        if (name in glyph && glyph[name] !== null && glyph[name].value !== null) glyph[name] = {value: shades.ink};
      }
      view.renderer_views.get(renderer)?.set_visuals();  // now, and not with the next frame: paper does not wait
    }
  }
}

const shown = () => paint({ink: colour("ink"), frame: colour("frame"), faint: colour("faint")});
dark.addEventListener("change", shown);
addEventListener("load", () => {
  const wait = () => (charts().length && charts().every(view => view.has_finished()) ? shown() : setTimeout(wait, 20));
  if (window.Bokeh) wait();
});

// On paper stand pictures of the charts, in its colours and as wide as it is: a canvas keeps those of the screen.
addEventListener("beforeprint", () => {
  paint({ink: "#000000", frame: "#777777", faint: "#cccccc"});
  for (const view of charts()) {
    const place = view.el.closest(".chart"), picture = view.export("png", true).canvas;
    picture.className = "printed";
    picture.removeAttribute("style");
    place.append(picture);
    place.classList.add("has-print");
  }
});
addEventListener("afterprint", () => {
  for (const picture of document.querySelectorAll(".printed")) {
    picture.parentElement.classList.remove("has-print");
    picture.remove();
  }
  shown();
});

// The command that exports: a launcher is chosen, and the command copied.
for (const part of document.querySelectorAll(".export")) {
  const code = part.querySelector("code"), choice = part.querySelector("select"), button = part.querySelector("button");
  const show = () => (code.textContent = `${code.dataset.command} ${choice.value}`);
  choice.addEventListener("change", show);
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: copy it";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  show();
}
