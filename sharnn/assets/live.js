// The widget's half in the notebook: it carries messages between the page in its frame and the
// kernel. The page comes with the first answer, so that no notebook stores it twice.

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.title = "Attention explorer";
  frame.style.cssText = "width: 100%; height: 1500px; border: 0";
  el.append(frame);

  const fromPage = ({ source, data }) => {
    if (source === frame.contentWindow && data?.sharnn === "ask") model.send(data);
  };
  const fromKernel = (answer) => {
    if (answer.what === "page") frame.srcdoc = answer.page;
    else frame.contentWindow.postMessage({ sharnn: "answer", ...answer }, "*");
  };
  window.addEventListener("message", fromPage);
  model.on("msg:custom", fromKernel);
  model.send({ what: "page" });
  return () => {
    window.removeEventListener("message", fromPage);
    model.off("msg:custom", fromKernel);
  };
}

export default { render };
