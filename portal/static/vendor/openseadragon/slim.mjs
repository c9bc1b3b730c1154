// Makes openseadragon.min.js from the sources that the published package carries in its source map, without the parts
// that the reading room never shows: a quarter of the file. In an empty folder:
//   npm pack openseadragon@6.1.1 && tar xzf openseadragon-6.1.1.tgz && npm install terser@5.51.2
//   node …/slim.mjs package > openseadragon.min.js
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';

const { minify } = createRequire(join(process.cwd(), 'here.js'))('terser');
const LEFT_OUT = new Set([
  // Servers of tiles other than ours, which is told in the page's script.
  'dzitilesource', 'iiiftilesource', 'iiptilesource', 'iristilesource', 'legacytilesource', 'osmtilesource',
  'tilesourcecollection', 'tmstilesource', 'zoomifytilesource',
  // Drawers: fields are drawn on a 2D canvas, so that stain colours are the browser's and nobody else's.
  'htmldrawer', 'matrix3', 'webgldrawer',
  // Its own controls: the room has its own, with keys and labels.
  'button', 'buttongroup', 'fullscreen', 'navigator', 'overlay', 'referencestrip',
]);

const from = process.argv[2];
const { version } = JSON.parse(readFileSync(join(from, 'package.json')));
const { sources, sourcesContent } = JSON.parse(readFileSync(join(from, 'build/openseadragon/openseadragon.js.map')));
const names = sources.map((path) => basename(path, '.js'));
const unknown = [...LEFT_OUT].filter((name) => !names.includes(name));
if (unknown.length) throw new Error(`This version has no ${unknown.join(', ')}: look again at what is left out.`);
const kept = sourcesContent.filter((_, at) => !LEFT_OUT.has(names[at]));
const { code } = await minify(kept.join('\n'), { compress: { passes: 2, ecma: 2020 }, mangle: true, format: { comments: false } });
process.stdout.write(`//! openseadragon ${version}, without ${[...LEFT_OUT].sort().join(', ')}
//! License: http://openseadragon.github.io/license/
${code}\n`);
