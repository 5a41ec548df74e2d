// Requests to the server: the token, waiting when it is busy, and errors in words.

const MAX_TRIES = 20;
const element = (id) => document.getElementById(id);

let token = sessionStorage.getItem("maskfree-token") ?? "";

function askToken() {
  const dialog = element("token-dialog");
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      token = element("token").value;
      sessionStorage.setItem("maskfree-token", token);
      done();
    }, { once: true });
  });
}

function pause(seconds, signal) {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      failed(signal.reason);
    }, { once: true });
  });
}

/**
 * Ask the server, and wait while it is busy.
 *
 * form: object of fields; lists become repeated fields. Without one it is a GET.
 * Returns the response; throws an Error whose message is for people.
 */
export async function ask(path, form = null, { signal = null, onWait = () => {} } = {}) {
  let body = null;
  if (form) {
    body = new FormData();
    for (const [name, value] of Object.entries(form)) {
      for (const each of Array.isArray(value) ? value : [value]) body.append(name, each);
    }
  }
  for (let tries = 1; ; tries++) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(path, { method: body ? "POST" : "GET", body, headers, signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error("The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      await askToken();
      continue;
    }
    if (response.status === 429 && tries < MAX_TRIES) {
      onWait();
      await pause(Number(response.headers.get("retry-after")) || 1, signal);
      continue;
    }
    let reason = `The server answers ${response.status}.`;
    try {
      reason = (await response.json()).error;
    } catch {
      // Not from this server: a proxy, for example.
    }
    throw new Error(reason);
  }
}

/** Let the browser save content as a file. */
export function saveFile(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
