"use strict";
// What is alive on a page: who else is here, and what readers say.
(() => {
  const here = document.getElementById("visitors");
  const events = new EventSource("/visitors/events");
  events.onmessage = (event) => {
    const { visitors } = JSON.parse(event.data);
    here.textContent = visitors === 1 ? "1 reader here" : `${visitors} readers here`;
  };

  const comments = document.getElementById("comments");
  if (!comments) return;
  const list = comments.querySelector("ul");
  const form = comments.querySelector("form");
  const address = `/comments?page=${encodeURIComponent(location.pathname)}`;
  const show = ({ text, at_unix_ms }) => {
    const item = document.createElement("li");
    item.textContent = text;
    item.title = new Date(at_unix_ms).toLocaleString();
    list.append(item);
  };
  fetch(address).then((answer) => answer.json()).then((all) => all.forEach(show));

  // Sent again under the same key until it is acknowledged: it is there once.
  const send = async (text, key) => {
    for (let wait = 200; ; wait *= 2) {
      try {
        const headers = { "idempotency-key": key };
        const answer = await fetch(address, { method: "POST", headers, body: text });
        if (answer.ok) return answer.json();
        if (answer.status < 500) throw new Error(await answer.text());
      } catch (error) {
        if (!(error instanceof TypeError) || wait > 5000) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.elements.text.value;
    try {
      show(await send(text, crypto.randomUUID?.() ?? String(Math.random()).slice(2)));
      form.reset();
    } catch (error) {
      form.querySelector("output").textContent = error.message;
    }
  });
})();
