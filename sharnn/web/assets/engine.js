// The page's side: starts the worker, sends requests and receives the answers.

class Engine {
  /** Starts a worker from the engine's own source text, because a page in a file can't load one. */
  constructor(source) {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    this.worker = new Worker(url);
    URL.revokeObjectURL(url);
    this.waiting = new Map();
    this.id = 0;
    this.worker.onmessage = ({ data: { id, done, error, ...part } }) => {
      const request = this.waiting.get(id);
      if (!request) return;
      if (error) request.fail(new Error(error));
      else if (done) request.finish(part);
      else request.receive(part);
      if (done) this.waiting.delete(id);
    };
  }

  /** Sends a request; calls `receive` with each part, and returns the last answer. */
  request(type, fields = {}, receive = () => {}) {
    const id = ++this.id;
    return new Promise((finish, fail) => {
      this.waiting.set(id, { finish, fail, receive });
      this.worker.postMessage({ id, type, ...fields });
    });
  }

  stop() {
    this.worker.terminate();
  }
}
