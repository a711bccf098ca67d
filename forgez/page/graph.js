// Where the steps of a pipeline go in a picture, parents before what is made from them.
"use strict";

const GRAPH = { height: 46, gap: 18, dummy: 6, between: 54, least: 150, most: 210, narrow: 96 };

// layersOf returns the nodes in layers, each below its parents. A parent that is no step is
// given with the request. An edge over several layers has a dummy in each of those between.
function layersOf(steps) {
	const nodes = new Map();
	const known = new Set(steps.map((s) => s.name));
	for (const s of steps) {
		for (const p of s.parents) {
			if (!known.has(p) && !nodes.has(p)) nodes.set(p, { name: p, given: true, layer: 0, parents: [] });
		}
	}
	for (const s of steps) { // parents come first
		const parents = s.parents.map((p) => nodes.get(p));
		nodes.set(s.name, { name: s.name, layer: Math.max(-1, ...parents.map((p) => p.layer)) + 1, parents });
	}
	const layers = [];
	const put = (n) => (layers[n.layer] ??= []).push(n);
	const edges = [];
	for (const n of nodes.values()) put(n);
	for (const n of nodes.values()) {
		for (const p of n.parents) {
			const path = [p];
			for (let layer = p.layer + 1; layer < n.layer; layer++) {
				const dummy = { dummy: true, layer, parents: [path.at(-1)] };
				put(dummy);
				path.push(dummy);
			}
			path.push(n);
			edges.push(path);
		}
	}
	untangle(layers, edges);
	return { layers, edges };
}

// untangle orders each layer by where its neighbours are, down and up again, so that few
// edges cross.
function untangle(layers, edges) {
	const before = new Map(), after = new Map();
	for (const path of edges) {
		for (let i = 1; i < path.length; i++) {
			if (!before.has(path[i])) before.set(path[i], []);
			if (!after.has(path[i - 1])) after.set(path[i - 1], []);
			before.get(path[i]).push(path[i - 1]);
			after.get(path[i - 1]).push(path[i]);
		}
	}
	const place = () => layers.forEach((layer) => layer.forEach((n, i) => { n.at = (i + 0.5) / layer.length; }));
	const sort = (layer, neighbours) => {
		for (const n of layer) {
			const near = neighbours.get(n);
			n.want = near ? near.reduce((sum, m) => sum + m.at, 0) / near.length : n.at;
		}
		layer.sort((a, b) => a.want - b.want);
		layer.forEach((n, i) => { n.at = (i + 0.5) / layer.length; });
	};
	place();
	for (let sweep = 0; sweep < 4; sweep++) {
		layers.forEach((layer) => sort(layer, before));
		layers.slice().reverse().forEach((layer) => sort(layer, after));
	}
}

// layoutOf gives each node its place within a width: from left to right if there is room,
// else from top to bottom. It returns the nodes, the edges as paths, and the height.
function layoutOf(steps, width) {
	const { layers, edges } = layersOf(steps);
	const g = GRAPH, room = width - 8; // the cards of a subject's steps stick out
	const across = Math.min(g.most, (room - (layers.length - 1) * g.between) / layers.length);
	return across >= g.least ? leftToRight(layers, edges, across) : topToBottom(layers, edges, room);
}

function leftToRight(layers, edges, across) {
	const g = GRAPH, size = (n) => (n.dummy ? g.dummy : g.height) + g.gap;
	const tall = layers.map((layer) => layer.reduce((sum, n) => sum + size(n), -g.gap));
	const height = Math.max(...tall);
	layers.forEach((layer, i) => {
		let y = (height - tall[i]) / 2;
		for (const n of layer) {
			Object.assign(n, { x: i * (across + g.between), y, w: across, h: size(n) - g.gap });
			y += size(n);
		}
	});
	const paths = edges.map((path) => {
		let d = "";
		for (let i = 1; i < path.length; i++) {
			const a = path[i - 1], b = path[i], last = i === path.length - 1;
			const x1 = a.x + a.w, y1 = a.y + a.h / 2, x2 = b.x - (last ? 6 : 0), y2 = b.y + b.h / 2, half = (x2 - x1) / 2;
			d += `${i === 1 ? "M" : "L"}${x1} ${y1}C${x1 + half} ${y1} ${x2 - half} ${y2} ${x2} ${y2}`;
			if (b.dummy) d += `L${b.x + b.w} ${y2}`;
		}
		const end = path.at(-1), y = end.y + end.h / 2;
		return { d, head: `M${end.x - 1} ${y}l-8 -4v8z` };
	});
	return { nodes: layers.flat().filter((n) => !n.dummy), paths, height: height + 8 };
}

// topToBottom breaks layers that are too wide. Edges that would run behind other nodes run
// in a gutter at the side.
function topToBottom(layers, edges, room) {
	const g = GRAPH, most = Math.max(...layers.map((layer) => layer.filter((n) => !n.dummy).length));
	const far = edges.some((path) => path.length > 2) || most > (room + g.gap) / (g.narrow + g.gap);
	const lanes = far ? 4 : 0, wide = Math.min(room - lanes * 6, most * (g.most + g.gap) - g.gap);
	let y = 0;
	for (const layer of layers) {
		const nodes = layer.filter((n) => !n.dummy);
		const rows = Math.ceil(nodes.length / Math.max(1, Math.floor((wide + g.gap) / (g.narrow + g.gap))));
		const per = Math.ceil(nodes.length / rows);
		const w = Math.min(g.most, (wide - (per - 1) * g.gap) / per);
		for (let i = 0; i < nodes.length; i += per) {
			const row = nodes.slice(i, i + per);
			let x = (wide - row.length * w - (row.length - 1) * g.gap) / 2;
			for (const n of row) {
				Object.assign(n, { x, y, w, h: g.height, first: i === 0, last: i + per >= nodes.length });
				x += w + g.gap;
			}
			y += g.height + g.gap;
		}
		y += g.gap;
	}
	let lane = 0;
	const paths = edges.map((path) => {
		const a = path[0], b = path.at(-1), x1 = a.x + a.w / 2, y1 = a.y + a.h, x2 = b.x + b.w / 2, y2 = b.y - 6;
		let d = `M${x1} ${y1}C${x1} ${y1 + 18} ${x2} ${y2 - 18} ${x2} ${y2}`;
		if (path.length > 2 || !a.last || !b.first) {
			const x = wide + 6 + (lane++ % lanes) * 6;
			d = `M${x1} ${y1}C${x1} ${y1 + 16} ${x} ${y1} ${x} ${y1 + 18}L${x} ${y2 - 18}C${x} ${y2} ${x2} ${y2 - 16} ${x2} ${y2}`;
		}
		return { d, head: `M${x2} ${y2 + 5}l-4 -8h8z` };
	});
	return { nodes: layers.flat().filter((n) => !n.dummy), paths, height: y - 2 * g.gap + 8 };
}
