// A browser gives no workers to pages that are opened from the disk. There, a hidden frame runs the search's script instead:
// it has the page's origin, and messages go to and fro as events.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #ready;

    constructor(url) {
      super();
      this.#frame.hidden = true;
      document.documentElement.append(this.#frame);
      const page = this.#frame.contentDocument;
      page.open(); // or some browsers put an empty page in the place of ours
      page.write("<!doctype html>");
      page.close();
      const inside = this.#frame.contentWindow;
      inside.postMessage = (data) => this.#say("message", { data });
      inside.importScripts = (...urls) =>
        urls.reduce((earlier, next) => earlier.then(() => this.#load(next)), Promise.resolve());
      this.#ready = this.#load(url);
    }

    postMessage(data) {
      const inside = this.#frame.contentWindow;
      this.#ready.then(() => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }

    terminate() {
      this.#frame.remove();
    }

    #say(type, init) {
      this.dispatchEvent(new MessageEvent(type, init));
    }

    #load(url) {
      return new Promise((resolve, reject) => {
        const script = this.#frame.contentDocument.createElement("script");
        Object.assign(script, { src: url, onload: resolve, onerror: reject });
        this.#frame.contentDocument.documentElement.append(script);
      });
    }
  };
}
