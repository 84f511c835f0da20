// The widget in the notebook. It passes messages between the page in its frame and the kernel. The
// page arrives with the first response, so that the notebook does not store it a second time.

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.className = "sharnn-frame";
  frame.title = "Attention explorer";
  frame.style.cssText = "width: 100%; height: 1500px; border: 0";
  el.append(frame);
  let latest = null; // the newest trace since the page arrived

  const toPage = (response) =>
    frame.contentWindow?.postMessage({ sharnn: "response", ...response }, "*");
  const fromPage = ({ source, data }) => {
    if (source !== frame.contentWindow || data?.sharnn !== "request") return;
    model.send(data);
    // When JupyterLab moves a frame out of the document and back, its page loads again.
    if (data.type === "hello" && latest) toPage(latest);
  };
  const fromKernel = (response) => {
    if (response.type === "trace") latest = response;
    if (response.type !== "page") toPage(response);
    else if (!frame.srcdoc) frame.srcdoc = response.page; // otherwise another view requested it
  };
  window.addEventListener("message", fromPage);
  model.on("msg:custom", fromKernel);
  model.send({ type: "page" });
  return () => {
    window.removeEventListener("message", fromPage);
    model.off("msg:custom", fromKernel);
  };
}

export default { render };
