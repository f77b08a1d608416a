// The SLO panel of Locust's web UI: docked below the page, refreshed every second, light or dark as Locust is.
(() => {
  const REFRESH_MS = 1000;
  const BASE = window.location.pathname.replace(/\/$/, "");
  const LABELS = {
    "Number of users (peak concurrency)": "Target rate (requests/s; one user is one request per second)",
    "Ramp up (users started/second)": "Ramp up (requests/s more every second)",
  };
  const STYLE = `
    #fathom { position: fixed; left: 0; right: 0; bottom: 0; z-index: 1000; font: 14px/1.4 Roboto, Helvetica, Arial, sans-serif;
      padding: 10px 24px 12px; border-top: 1px solid var(--line); background: var(--back); color: var(--ink);
      box-shadow: 0 -2px 8px #0003; max-height: 45vh; overflow: auto }
    #fathom.light { --back: #fff; --ink: #1d2b22; --soft: #5b6b61; --line: #d4ddd7 }
    #fathom.dark { --back: #1e2521; --ink: #e8efe9; --soft: #a3b2a8; --line: #3a463f }
    #fathom .top { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center }
    #fathom b.verdict { padding: 1px 10px; border-radius: 10px; color: #fff; text-transform: uppercase; font-size: 12px }
    #fathom .pass { background: #15803d } #fathom .fail { background: #b91c1c }
    #fathom .undecided { background: #a16207 } #fathom .invalid { background: #7e22ce } #fathom .none { background: #64748b }
    #fathom .headline { flex-basis: 100%; font-size: 16px }
    #fathom .why { color: var(--soft); flex: 1 1 300px }
    #fathom dl { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 8px 0 0 }
    #fathom dt { color: var(--soft); font-size: 12px } #fathom dd { margin: 0; font-variant-numeric: tabular-nums; font-size: 16px }
    #fathom dd small { color: var(--soft); font-size: 12px }
    #fathom button { font: inherit; font-size: 12px; color: inherit; background: none; cursor: pointer;
      border: 1px solid var(--line); border-radius: 10px; padding: 1px 10px }
    @media (max-width: 600px) { #fathom { padding: 8px 12px } #fathom dl { gap: 4px 16px } }`;

  const panel = Object.assign(document.createElement("section"), { id: "fathom" });
  panel.setAttribute("aria-label", "SLO status");
  document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }));
  document.body.append(panel);

  const element = (tag, text, className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
  const number = (value, digits = 1) =>
    value == null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

  function isDark() {
    const [red, green, blue] = (getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
    return red + green + blue < 384;
  }

  function figure(name, value, unit) {
    const holder = document.createElement("div");
    const shown = element("dd", value);
    if (unit) shown.append(" ", element("small", unit));
    holder.append(element("dt", name), shown);
    return holder;
  }

  function headline({ model, slos, capacity }) {
    const ends = [capacity.estimate_per_s, ...capacity.interval_per_s].map((rate) => number(rate, rate < 100 ? 1 : 0));
    return `${model}: about ${ends[0]} requests/s under ${slos} (95 % interval ${ends[1]} to ${ends[2]}, from ${capacity.rates} rates)`;
  }

  function latencies(point) {
    return [["p50", "p50_ms"], ["p90", "p90_ms"], ["p99", "p99_ms"], ["p99.9", "p999_ms"], ["max", "max_ms"]].map(([name, key]) =>
      figure(name, number(point[key], 3), "ms"));
  }

  // Of answers that come in parts (tokens).
  function streams({ streaming, p50_ms, p99_ms }) {
    const times = [["ttft p50", "ttft_p50_ms"], ["ttft p99", "ttft_p99_ms"], ["itl p50", "itl_p50_ms"], ["itl p99", "itl_p99_ms"],
      ["gap p99", "gap_p99_ms"]];
    return [
      figure("p50", number(p50_ms, 1), "ms"),
      figure("p99", number(p99_ms, 1), "ms"),
      figure("tokens", number(streaming.parts_per_s, 0), "/s"),
      ...times.map(([name, key]) => figure(name, number(streaming[key], 1), "ms")),
      figure("streams at once", number(streaming.at_once)),
      figure("within all limits", number(100 * streaming.attainment), "%"),
      figure("cancelled", number(streaming.cancelled, 0)),
    ];
  }

  function figures(point) {
    const list = document.createElement("dl");
    const worst = (name) => Math.max(...point.workers.map((share) => share[name]));
    list.append(
      figure("target", number(point.rate_per_s), "/s"),
      figure("answered", number(point.achieved_per_s), "/s"),
      figure("requests at this rate", number(point.requests, 0)),
      figure("failed", number(point.errors, 0)),
      ...(point.streaming ? streams(point) : latencies(point)),
      ...point.models.flatMap((model) => [["p50", "p50_ms"], ["p99", "p99_ms"]].map(([name, key]) =>
        figure(`${model.model} ${name}`, number(model[key], 3), "ms"))),
      ...point.slos.map((slo) => figure(slo.slo, `${number(slo.over, 0)} of ${number(slo.requests, 0)} over`, slo.verdict)),
      figure("generators", number(point.workers.length, 0)),
      figure("send lag p99", number(worst("send_lag_p99_ms"), 3), "ms"),
      figure("late", number(100 * worst("late_share")), "%"),
      figure("generator CPU", number(100 * worst("cpu_share"), 0), "% of a core"),
    );
    return list;
  }

  // The figures hide what is under them on a small screen: there they are folded until asked for.
  let folded = window.innerWidth < 600;
  const fold = element("button", "");
  fold.type = "button";
  fold.onclick = () => { folded = !folded; show(last); };
  let last;

  function show(status) {
    last = status;
    fold.textContent = folded ? "show figures" : "hide figures";
    fold.setAttribute("aria-expanded", String(!folded));
    panel.className = isDark() ? "dark" : "light";
    const top = element("div", "", "top");
    const verdict = status.problem ? "invalid" : status.point ? status.point.verdict : "none";
    const word = status.problem ? "stopped" : status.point ? status.point.verdict : status.state;
    const all = status.model ? `${status.model} under ${status.slos}` : "Fathom";
    const what = status.capacity && status.point ? `at ${number(status.point.rate_per_s, 0)}/s` : all;
    const hint = "One user is one request per second, sent at its scheduled time even if earlier ones are unanswered. " +
      "The number of users is the request rate. Latency is measured from the scheduled time.";
    if (status.capacity) top.append(element("strong", headline(status), "headline"));
    top.append(element("b", word, `verdict ${verdict}`), element("strong", what));
    top.append(element("span", status.problem || (status.point ? status.point.reason : hint), "why"));
    fold.hidden = !status.point;
    top.append(fold);
    panel.replaceChildren(top, ...(status.point && !folded ? [figures(status.point)] : []));
    document.body.style.paddingBottom = `${panel.offsetHeight + 16}px`;
  }

  function relabel() {
    for (const label of document.querySelectorAll("label, legend span")) {
      if (LABELS[label.firstChild?.textContent]) label.firstChild.textContent = LABELS[label.firstChild.textContent];
    }
  }

  let opened = false;
  function openOptions(status) {
    if (opened || status.state !== "ready") return;
    const header = [...document.querySelectorAll("button")].find((one) => one.textContent.trim() === "Custom parameters");
    if (!header) return;
    opened = true; // once: whoever closes it wants it closed
    if (header.getAttribute("aria-expanded") === "false") header.click();
  }

  async function refresh() {
    try {
      const answer = await fetch(`${BASE}/fathom/status`);
      if (answer.ok) {
        const status = await answer.json();
        show(status);
        openOptions(status);
      }
    } catch {
      show({ state: "gone", slos: "", problem: "Locust no longer answers" });
    }
    relabel();
    setTimeout(refresh, REFRESH_MS);
  }
  new MutationObserver(relabel).observe(document.body, { childList: true, subtree: true });
  refresh();
})();
