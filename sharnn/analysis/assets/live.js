// The widget's half in the notebook: it carries messages between the page in its frame and the
// kernel. The page comes with the first answer, so that no notebook stores it twice.

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.title = "Attention explorer";
  frame.style.cssText = "width: 100%; height: 1500px; border: 0";
  el.append(frame);
  let latest = null; // the text that was read since the page came

  const toPage = (answer) => frame.contentWindow?.postMessage({ sharnn: "answer", ...answer }, "*");
  const fromPage = ({ source, data }) => {
    if (source !== frame.contentWindow || data?.sharnn !== "ask") return;
    model.send(data);
    // JupyterLab takes frames out of the document and puts them back: their page starts anew.
    if (data.what === "hello" && latest) toPage(latest);
  };
  const fromKernel = (answer) => {
    if (answer.what === "reading") latest = answer;
    if (answer.what !== "page") toPage(answer);
    else if (!frame.srcdoc) frame.srcdoc = answer.page; // else another view has asked for it
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
