// The start page: is the server ready, and how to use it from here.
// The key arrives in the fragment of the address, which no server and no log ever sees.

const KEY = "enlarger-key";

function takeKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem(KEY, given);
    // Out of the address bar, so that neither bookmark nor screenshot keeps it.
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

const examples = {
  cli: () => "enlarger upscale photo.jpg -o large.png --scale 4",

  python: (base, key) => `import base64
import pathlib
import wavespeed

photo = base64.b64encode(pathlib.Path("photo.jpg").read_bytes()).decode()
client = wavespeed.Client(
    api_key="${key}",
    base_url="${base}",
)
result = client.run("wavespeed-ai/real-esrgan", {"image": photo, "scale": 4})
print(result["outputs"][0])`,

  curl: (base, key) => `curl ${base}/api/v3/wavespeed-ai/real-esrgan \\
  -H "Authorization: Bearer ${key}" \\
  -H "Content-Type: application/json" \\
  -d '{"image": "https://example.com/photo.jpg", "scale": 4}'

# then, with the id of the answer, until status is completed:
curl ${base}/api/v3/predictions/ID/result \\
  -H "Authorization: Bearer ${key}"`,
};

function masked(key) {
  return key.slice(0, 4) + "•".repeat(12);
}

function showExamples(key) {
  for (const figure of document.querySelectorAll("[data-example]")) {
    const text = examples[figure.dataset.example](location.origin, key || "YOUR_KEY");
    figure.querySelector("pre code").textContent = text;
  }
}

function setUpCopying(key) {
  for (const figure of document.querySelectorAll("[data-example]")) {
    const button = figure.querySelector("button");
    // Browsers offer the clipboard to https and to this machine only.
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      const text = examples[figure.dataset.example](location.origin, key || "YOUR_KEY");
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

function setUpKey(key) {
  const shown = document.getElementById("key");
  const reveal = document.getElementById("reveal");
  let open = false;
  const draw = () => {
    const text = open ? key : masked(key);
    shown.textContent = text;
    reveal.textContent = open ? "Hide" : "Show";
    reveal.setAttribute("aria-pressed", String(open));
    showExamples(text);
  };
  document.getElementById("no-key").hidden = true;
  document.getElementById("key-row").hidden = false;
  reveal.addEventListener("click", () => { open = !open; draw(); });
  draw();
}

async function showStatus() {
  const status = document.getElementById("status");
  let good = false;
  let text = "The server does not answer.";
  try {
    const answer = await fetch("/readyz", { cache: "no-store" });
    const body = await answer.json();
    good = answer.ok;
    text = good ? "Ready." : `Not ready: ${Object.keys(body.checks).filter((name) => !body.checks[name]).join(", ")}.`;
  } catch {
    // The sentence above says it.
  }
  status.className = `status ${good ? "good" : "bad"}`;
  // Written only when it changes: screen readers announce every write.
  if (status.textContent !== text) status.textContent = text;
}

function start() {
  const key = takeKey();
  if (key) setUpKey(key);
  else showExamples("");
  setUpCopying(key);
  showStatus();
  setInterval(showStatus, 10_000);
}

start();
