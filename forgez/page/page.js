// Asks for the data once a second and changes what is different on the page, so that
// whatever has the focus, or is selected, stays as it is.
"use strict";

const EVERY = 1000, PATIENCE = 5000, MOST_CHANGES = 20, MOST_TROUBLE = 8, SKEW = 10_000;
const STATUSES = {
	none: "no token is known here",
	fetching: "no live token; a fetch is under way",
	live: "the token can be handed out",
	ahead: "live, and being renewed in the background",
	cooling: "the last fetch failed; callers get that failure until the next try",
	dead: "expired or revoked; the next caller fetches",
};
const SHAPES = {
	none: ["M8 1a7 7 0 1 0 0 14A7 7 0 1 0 8 1zm0 2a5 5 0 1 1 0 10A5 5 0 1 1 8 3z"],
	fetching: ["M8 1a7 7 0 1 0 0 14A7 7 0 1 0 8 1zm0 2a5 5 0 0 1 0 10z"],
	live: ["M8 1a7 7 0 1 0 0 14A7 7 0 1 0 8 1z"],
	ahead: ["M8 1a7 7 0 1 0 0 14A7 7 0 1 0 8 1zm0 2a5 5 0 1 1 0 10A5 5 0 1 1 8 3z", "M8 4.500l3.500 4h-2.200v3h-2.600v-3H4.500z"],
	cooling: ["M8 1l7.500 14H.5zM7 6v4.500h2V6zm0 5.500v2h2v-2z"],
	dead: ["M3 1L1 3l5 5-5 5 2 2 5-5 5 5 2-2-5-5 5-5-2-2-5 5z"],
};
const COUNTERS = [
	["fetches", "Fetches", "requests to the auth server, each try"],
	["refreshes", "Refreshes", "tokens got by a refresh token"],
	["failures", "Failures", "fetches that failed after all their tries"],
	["failed_fast", "Failed fast", "callers that got a remembered failure"],
	["loads", "Loads", "tokens that another process had stored"],
	["refresh_ahead", "Renewals ahead", "begun in the background"],
	["lock_waits", "Lock waits", "times that a peer held the lock"],
	["challenges", "Challenges", "fetches because an API asked for more"],
	["revocations", "Revocations", "tokens that Step.Revoke has ended"],
	["revoke_failures", "Revoke failures", "tokens that it couldn't end"],
];
const TOTALS = [
	["invalidations", "Invalidations", "marks raised"],
	["refusals_ignored", "Refusals ignored", "because there were too many"],
	["storage_errors", "Storage errors", "calls that failed or took too long"],
	["bad_records", "Bad records", "stored records of no use"],
];
const IN_ROW = 3; // of COUNTERS

const $ = (id) => document.getElementById(id);

// el makes an element: el("td.number", {title: "…"}, "text", child, …).
function el(what, attributes, ...children) {
	const [tag, ...classes] = what.split(".");
	const e = document.createElement(tag);
	e.classList.add(...classes);
	for (const [name, value] of Object.entries(attributes ?? {})) e.setAttribute(name, value);
	e.append(...children);
	return e;
}

function svg(tag, attributes, ...children) {
	const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
	e.append(...children);
	return e;
}

// say sets a text, if it is another one.
function say(e, text) {
	if (e.textContent !== text) e.textContent = text;
}

function icon(status) {
	return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" },
		...SHAPES[status].map((d) => svg("path", { d, "fill-rule": "evenodd" })));
}

function sign(status, text) {
	return el(`span.sign.${status}`, {}, icon(status), el("span", {}, text));
}

// duration says how long, in two units at most.
function duration(ms) {
	const s = Math.max(0, Math.round(ms / 1000)), two = (n) => String(n).padStart(2, "0");
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
	if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${two(Math.floor(s % 3600 / 60))} min`;
	return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}

const exact = (time) => new Date(time).toISOString().replace(/\.\d+/, "");

const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit" });

// signOf is the status that stands for a step: of many subjects' cooling if there is any,
// else the one that most are at.
function signOf(step) {
	if (!step.subjects) return step.status;
	if (step.subjects.cooling) return "cooling";
	const all = Object.entries(step.subjects).sort((a, b) => b[1] - a[1]);
	return all.length ? all[0][0] : "none";
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

// countsOf are how many subjects are at what, in the order of the signs.
const countsOf = (step) => Object.keys(STATUSES).filter((s) => step.subjects[s]).map((s) => [s, step.subjects[s]]);

function timeOf(step, now) {
	const until = (t) => duration(Date.parse(t) - now);
	if (step.subjects) return "";
	if (step.status === "cooling") return `next try in ${until(step.next_try)}`;
	if (step.status === "live" || step.status === "ahead") return step.expiry ? `expires in ${until(step.expiry)}` : "never expires";
	if (step.expiry && Date.parse(step.expiry) <= now) return `expired ${duration(now - Date.parse(step.expiry))} ago`;
	if (step.status !== "dead") return "";
	// A token is no longer handed out in the last 10 s, or tenth, of its life.
	return step.expiry && Date.parse(step.expiry) - now <= SKEW ? "about to expire" : "revoked or idle";
}

// block is what the page has of one pipeline: its section, and for each step a row.
class Block {
	constructor(view, number) {
		this.id = `p${number}`;
		this.shape = shapeOf(view);
		this.rows = view.steps.map((s, i) => new Row(s, `${this.id}-${i}`));
		this.summary = el("p.summary");
		this.graph = el("div.graph", { role: "img" });
		this.totals = el("dl.facts.totals");
		this.section = el("section", { id: this.id, "aria-labelledby": `${this.id}-name`, tabindex: "-1" },
			el("h2", { id: `${this.id}-name` }, view.name), this.summary, this.graph, this.table(view.name), this.totals);
		this.width = 0;
		this.nodes = new Map();
	}

	table(name) {
		const columns = [["c-step", "Step"], ["c-state", "State"], ["c-time", "Time"], ["", "Last error"],
			...COUNTERS.slice(0, IN_ROW).map(([, title]) => ["c-number", title]), ["c-more", "More"]];
		// The roles stay what they are where rows are blocks.
		return el("table", { role: "table", "aria-label": `Steps of ${name}` },
			el("colgroup", {}, ...columns.map(([c]) => el(c ? `col.${c}` : "col"))),
			el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
				...columns.map(([c, title]) => el(c === "c-number" ? "th.number" : "th", { scope: "col", role: "columnheader" }, title)))),
			el("tbody", { role: "rowgroup" }, ...this.rows.flatMap((r) => [r.row, r.details])));
	}

	update(view, now, first) {
		const by = new Map();
		for (const s of view.steps) by.set(signOf(s), (by.get(signOf(s)) ?? 0) + 1);
		const at = Object.keys(STATUSES).filter((s) => by.has(s)).map((s) => `${by.get(s)} ${s}`).join(", ");
		const own = view.steps.some((s) => s.per_subject);
		const subjects = own ? `. ${view.counters.subjects} ${view.counters.subjects === 1 ? "subject" : "subjects"} in memory, ${view.counters.evicted} dropped` : "";
		say(this.summary, `${view.steps.length} ${view.steps.length === 1 ? "step" : "steps"}: ${at}${subjects}`);
		facts(this.totals, TOTALS, view.counters);
		view.steps.forEach((s, i) => {
			const changed = this.rows[i].update(s, now);
			if (changed && !first) noteChange(`${view.name} / ${s.name}`, changed, s, now);
		});
		this.draw(view, now);
	}

	// draw draws the graph anew if there is another width for it, and writes the states.
	draw(view, now) {
		const width = this.graph.clientWidth;
		if (width && width !== this.width) {
			this.width = width;
			const { nodes, paths, height } = layoutOf(view.steps, width);
			this.graph.style.height = `${height}px`;
			const lines = svg("svg", {}, ...paths.flatMap((p) => [svg("path", { d: p.d }), svg("path", { d: p.head, class: "head" })]));
			this.nodes = new Map(nodes.map((n) => {
				const e = el("div.node", { title: n.name }, el("span.name", {}, n.name), el("span.at"));
				Object.assign(e.style, { left: `${n.x}px`, top: `${n.y}px`, width: `${n.w}px`, height: `${n.h}px` });
				if (n.given) {
					e.classList.add("given");
					e.lastChild.textContent = "given with the request";
				}
				return [n.name, e];
			}));
			this.graph.replaceChildren(lines, ...this.nodes.values());
		}
		const texts = [];
		for (const s of view.steps) {
			const e = this.nodes.get(s.name), at = signOf(s);
			let text = s.status;
			if (s.subjects) {
				const all = sum(s.subjects);
				text = s.subjects.cooling ? `${s.subjects.cooling} of ${all} cooling` : `${all} ${all === 1 ? "subject" : "subjects"}`;
			}
			texts.push(`${s.name}${s.parents.length ? ` from ${s.parents.join(" and ")}` : ""}`);
			if (!e || e.dataset.at === at + text) continue;
			e.className = `node ${at}${s.per_subject ? " own" : ""}`;
			e.dataset.at = at + text;
			e.lastChild.replaceChildren(sign(at, text));
		}
		const label = `Graph of the steps: ${texts.join("; ")}`;
		if (this.graph.getAttribute("aria-label") !== label) this.graph.setAttribute("aria-label", label);
	}
}

// facts writes counters as a list of names and numbers.
function facts(list, names, values) {
	if (!list.firstChild) {
		for (const [, title, hint] of names) list.append(el("div", { title: hint }, el("dt", {}, title), el("dd.number")));
	}
	names.forEach(([key], i) => say(list.children[i].lastChild, String(values[key])));
}

class Row {
	constructor(step, id) {
		this.id = id;
		const cell = (c, ...children) => el(`td.${c}`, { role: "cell" }, ...children);
		this.state = cell("state");
		this.time = cell("time");
		this.when = el("span.mono.muted");
		this.text = el("span.text");
		this.numbers = COUNTERS.slice(0, IN_ROW).map(([, title]) => {
			const c = cell("number");
			c.dataset.label = title;
			return c;
		});
		this.button = el("button", { type: "button", "aria-expanded": "false", "aria-controls": `${id}-more`, "aria-label": `Details of ${step.name}` }, "Details");
		const from = [step.parents.length ? `from ${step.parents.join(", ")}` : "", step.per_subject ? "each subject's own" : ""].filter(Boolean).join("; ");
		this.row = el("tr", { role: "row", id, tabindex: "-1" },
			el("th", { scope: "row", role: "rowheader" }, el("span.name", {}, step.name), el("span.from", {}, from)),
			this.state, this.time, cell("error", el("div", {}, this.when, " ", this.text)), ...this.numbers, cell("more", this.button));
		this.full = el("p");
		this.exact = el("p.muted");
		this.counters = el("dl.facts");
		this.details = el("tr.details", { role: "row", id: `${id}-more`, hidden: "" },
			el("td", { role: "cell", colspan: String(5 + IN_ROW) }, this.full, this.exact, this.counters));
		this.button.addEventListener("click", () => {
			const open = this.details.hidden;
			this.details.hidden = !open;
			this.button.setAttribute("aria-expanded", String(open));
		});
	}

	// update returns what the status was if it has changed.
	update(step, now) {
		const before = this.at, key = step.subjects ? JSON.stringify(countsOf(step)) : step.status;
		this.at = step.subjects ? "" : step.status;
		if (this.key !== key) {
			this.state.replaceChildren(el("span.signs", {}, ...step.subjects
				? countsOf(step).map(([s, n]) => sign(s, `${n} ${s}`))
				: [sign(step.status, step.status)]));
			if (step.subjects && !this.state.textContent) this.state.firstChild.append(el("span.muted", {}, "no subject"));
			if (this.key) {
				this.row.classList.remove("changed");
				void this.row.offsetWidth; // so that the animation begins anew
				this.row.classList.add("changed");
			}
			this.key = key;
		}
		say(this.time, timeOf(step, now));
		const working = step.subjects ? !step.subjects.cooling : step.status !== "cooling";
		this.text.classList.toggle("past", working);
		say(this.when, step.error ? `${duration(now - Date.parse(step.error.at))} ago` : "");
		say(this.text, step.error ? step.error.text : "");
		COUNTERS.slice(0, IN_ROW).forEach(([name], i) => say(this.numbers[i], String(step.counters[name])));

		say(this.full, step.error ? `Last error at ${exact(step.error.at)}: ${step.error.text}` : "No fetch has failed.");
		say(this.exact, [step.expiry && `Expiry ${exact(step.expiry)}`, step.next_try && `next try ${exact(step.next_try)}`].filter(Boolean).join(", "));
		facts(this.counters, COUNTERS, step.counters);
		return before && this.at && before !== this.at ? before : "";
	}
}

// shapeOf is what a block is built for. Of another shape it is built anew.
const shapeOf = (view) => JSON.stringify([view.name, view.steps.map((s) => [s.name, s.parents, s.per_subject])]);

function noteChange(name, before, step, now) {
	const words = el("li", {}, el("span.time", {}, clock(now)), ` ${name}: ${before} `, "→ ", sign(step.status, step.status));
	if (step.status === "cooling" && step.error) words.append(` ${step.error.text}`);
	$("changes").prepend(words);
	while ($("changes").childElementCount > MOST_CHANGES) $("changes").lastChild.remove();
	$("seen").hidden = false;
}

let blocks = null, label = "", paused = false, timer = 0, asking = null, last = null;

// show brings the page to what the data say.
function show(data) {
	const now = Date.parse(data.time);
	const first = last === null || last.label !== label;
	last = { data, label };
	say($("clock"), clock(now));
	if (blocks?.length !== data.pipelines.length || data.pipelines.some((v, i) => blocks[i].shape !== shapeOf(v))) {
		blocks = data.pipelines.map((v, i) => new Block(v, i));
		$("pipelines").replaceChildren(...blocks.map((b) => b.section));
		if (!blocks.length) $("pipelines").append(el("p", {}, "There is no pipeline."));
	}
	data.pipelines.forEach((v, i) => blocks[i].update(v, now, first));
	const labelled = data.pipelines.filter((v) => v.labelled);
	$("filter").hidden = !labelled.length;
	say($("found"), label && labelled.length ? foundBy(labelled) : "");
	showTrouble(data.pipelines);
}

// foundBy says how many subjects the label has found.
function foundBy(labelled) {
	return labelled.map((v) => {
		const own = v.steps.find((s) => s.per_subject);
		const n = own.subjects ? sum(own.subjects) : 1;
		const subjects = n === 0 ? "no subject in memory has" : n === 1 ? "one subject in memory has" : `${n} subjects in memory have`;
		return `${v.name}: ${subjects} the label “${label}”.`;
	}).join(" ");
}

// troubleOf returns the steps of a pipeline that cool down, each with the names of those that
// do so because of it.
function troubleOf(view, rows) {
	const cooling = view.steps.filter((s) => signOf(s) === "cooling");
	const cause = (s) => s.error?.step !== s.name && cooling.find((c) => c.name === s.error?.step);
	return cooling.filter((s) => !cause(s)).map((s) => ({
		v: view, s, row: rows[view.steps.indexOf(s)], because: cooling.filter((c) => cause(c) === s).map((c) => c.name),
	}));
}

// showTrouble names the steps that cool down, with a way to each.
function showTrouble(pipelines) {
	const all = pipelines.flatMap((v, i) => troubleOf(v, blocks[i].rows));
	const key = JSON.stringify([pipelines.length, all.map((x) => [x.row.id, x.s.subjects?.cooling, x.because])]);
	document.title = all.length ? `${all.length} cooling · Tokens` : "Tokens";
	if ($("trouble").dataset.key === key) return;
	$("trouble").dataset.key = key;
	const lines = all.slice(0, MOST_TROUBLE).map(({ v, s, row, because }) => el("li", {}, sign("cooling", "cooling"), " ",
		el("a", { href: `#${row.id}` }, `${v.name} / ${s.name}`), s.subjects ? ` for ${s.subjects.cooling} of its subjects` : "",
		because.length ? `, and because of it ${because.join(", ")}` : ""));
	if (all.length > MOST_TROUBLE) lines.push(el("li", {}, `and ${all.length - MOST_TROUBLE} more`));
	$("trouble").replaceChildren(all.length ? el("ul", {}, ...lines) : el("p.muted", {}, pipelines.length ? "No step is cooling down." : ""));
}

// ask asks for the data, shows them, and asks again in a second.
async function ask() {
	clearTimeout(timer);
	asking?.abort();
	const mine = asking = new AbortController();
	const tooLong = setTimeout(() => mine.abort(), PATIENCE);
	let data, problem = "";
	try {
		const headers = label ? { "Forgez-Subject-Label": encodeURIComponent(label) } : {};
		const answer = await fetch("?json", { headers, signal: mine.signal, cache: "no-store", credentials: "same-origin" });
		if (!answer.ok) throw new Error(`it answers ${answer.status}`);
		data = await answer.json();
	} catch (err) {
		problem = err instanceof Error && err.message.startsWith("it answers") ? err.message : "no answer";
	} finally {
		clearTimeout(tooLong);
	}
	if (mine !== asking) return; // another one was asked for meanwhile
	if (data) show(data);
	document.body.classList.toggle("lost", problem !== "");
	if (paused) return say($("feed"), "Paused");
	say($("feed"), problem ? `Lost the program: ${problem}. Below is what was last seen; trying again each second.` : "Live");
	if (!document.hidden) timer = setTimeout(ask, EVERY);
}

$("pause").addEventListener("click", () => {
	paused = !paused;
	$("pause").setAttribute("aria-pressed", String(paused));
	if (!paused) return void ask();
	clearTimeout(timer);
	asking?.abort();
	asking = null;
	document.body.classList.remove("lost");
	say($("feed"), "Paused");
});
document.addEventListener("visibilitychange", () => {
	if (!document.hidden && !paused) ask();
});
$("filter").addEventListener("submit", (e) => {
	e.preventDefault();
	label = $("label").value.trim();
	ask();
});
$("filter").addEventListener("reset", () => {
	label = "";
	ask();
});
new ResizeObserver(() => {
	if (last) blocks.forEach((b, i) => b.draw(last.data.pipelines[i], Date.parse(last.data.time)));
}).observe($("pipelines"));

$("legend").append(...Object.entries(STATUSES).map(([s, words]) => el("li", {}, sign(s, s), ` ${words}`)),
	el("li", {}, "Stacked cards: each subject has a token of the step. Dashed: given with the request."));
ask();
