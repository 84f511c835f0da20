// With a kernel behind it, the page asks: read this text, remove these positions.
// Questions and answers are messages to and from the page that holds this one.

function connectKernel(explorer) {
  if (window.parent === window) return;
  const ask = (question) => window.parent.postMessage({ sharnn: "ask", ...question }, "*");
  const busy = (text) => {
    $("live-status").textContent = text;
  };

  window.addEventListener("message", async ({ source, data }) => {
    if (source !== window.parent || data?.sharnn !== "answer") return;
    if (data.what === "hello") {
      $("live").hidden = $("ask").hidden = false;
      $("live-memory").value = data.memory;
      $("live-memory").max = data.longest;
    } else if (data.what === "reading") {
      await explorer.show(data.payload);
      busy(data.text);
    } else if (data.what === "removed") {
      // Another byte may have been chosen since.
      const { chosen, head } = explorer;
      if (data.chosen === chosen && data.block === head?.block) $("answer").textContent = data.text;
    } else if (data.what === "problem") {
      $(data.about === "remove" ? "answer" : "live-status").textContent = data.text;
    }
  });

  $("live").addEventListener("submit", (event) => {
    event.preventDefault();
    busy("The model reads ...");
    ask({ what: "read", text: $("live-text").value, memory: Number($("live-memory").value) });
  });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!explorer.head) return;
    $("answer").textContent = "...";
    const range = event.submitter?.name === "range";
    ask({
      what: "remove",
      block: explorer.head.block,
      chosen: explorer.chosen,
      count: range ? null : Number($("ask-count").value),
      nearest: range ? Number($("ask-near").value) : null,
      farthest: range ? Number($("ask-far").value) : null,
    });
  });
  ask({ what: "hello" });
}
