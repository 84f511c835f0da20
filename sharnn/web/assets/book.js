// In a page of the book: puts an interactive page into each element of the class `sharnn-page`, once
// it comes near the view, and loads the model's weights once for all of them.

(() => {
  const folder = new URL(".", document.currentScript.src);
  const loaded = new Map();

  /** Runs a script of the book's, once. If it can't be loaded, the next call tries again. */
  function load(name) {
    if (!loaded.has(name)) {
      loaded.set(name, new Promise((finish, fail) => {
        const script = document.createElement("script");
        script.src = new URL(name, folder);
        script.onload = finish;
        script.onerror = () => {
          loaded.delete(name);
          script.remove();
          fail(new Error(`${name} can't be loaded`));
        };
        document.head.append(script);
      }));
    }
    return loaded.get(name);
  }

  window.sharnnPages = {}; // documents by name, filled by the scripts
  /** The pages in frames call this when the reader starts the model. */
  window.loadSharnnWeights = async (name) => {
    await load(name);
    return window.sharnnWeights;
  };

  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      const { page, title } = target.dataset;
      load(`${page}.js`).then(() => {
        const frame = document.createElement("iframe");
        frame.title = title;
        frame.srcdoc = window.sharnnPages[page];
        target.replaceChildren(frame);
      }).catch(() => {
        target.textContent = "This interactive page could not be loaded. Check the connection, then reload the page.";
      });
    }
  }, { rootMargin: "600px" });
  const start = () => document.querySelectorAll(".sharnn-page").forEach((element) => observer.observe(element));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();

  // Paper is light, whatever the screen shows. The frames follow the page.
  const { dataset } = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  matchMedia("print").addEventListener("change", ({ matches }) => {
    const chosen = /^(light|dark)$/.test(dataset.mode) ? dataset.mode : dark.matches ? "dark" : "light";
    dataset.theme = matches ? "light" : chosen;
  });
})();
