// Pictures of what a run shows, for docs/comparing-runs.md: MLflow's pages and the report, by headless Chromium.
//
// In the folder of a run, with its report:
//   npm install --no-save playwright-core
//   node tools/screenshots.mjs OUT [CHROMIUM]
// Starts `python -m pipeline ui` on a free port and ends it. Exits with 1 where a page lacks what its picture should show.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { chromium } from 'playwright-core';

const [out = 'docs/pictures', executablePath = '/usr/bin/chromium'] = process.argv.slice(2);
const SIZE = { width: 1500, height: 860 };
const WIDE = { width: 1900, height: 640 };
const PATIENCE = 120_000;

function freePort() {
  return new Promise((done) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

async function answers(url) {
  for (const end = Date.now() + 2 * PATIENCE; Date.now() < end; await new Promise((go) => setTimeout(go, 500))) {
    const reply = await fetch(`${url}/health`).catch(() => null);
    if (reply?.ok) return;
  }
  throw new Error(`${url} does not answer`);
}

// Closes MLflow's help beside its pages, and takes the list of pages that trained models have; MLflow remembers both.
async function tidy(page) {
  for (const close of ['button[aria-label="Close"]', '[data-component-id*="assistant"][data-component-id*="close"]']) {
    for (const button of await page.locator(close).all()) await button.click({ timeout: 2000 }).catch(() => {});
  }
  await page.getByText('Model training', { exact: true }).first().click({ timeout: 5000 }).catch(() => {});
}

async function shoot(page, name, url, texts, size = SIZE) {
  await page.setViewportSize(size);
  await page.goto('about:blank');
  await page.goto(url, { waitUntil: 'load', timeout: PATIENCE });
  for (const text of texts) await page.getByText(text).first().waitFor({ timeout: PATIENCE });
  await page.waitForTimeout(4000); // charts are drawn after their data are there
  await page.screenshot({ path: `${out}/${name}.png` });
  console.log(`${out}/${name}.png`);
}

async function ask(url, path, body) {
  const reply = await fetch(`${url}/api/2.0/mlflow/${path}`, body && { method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } });
  return reply.json();
}

const port = await freePort();
const url = `http://127.0.0.1:${port}`;
mkdirSync(out, { recursive: true });
const server = spawn('python', ['-m', 'pipeline', 'ui', '--port', `${port}`], { stdio: 'ignore', detached: true });
try {
  await answers(url);
  const { experiment } = await ask(url, 'experiments/get-by-name?experiment_name=early-exit');
  const id = experiment.experiment_id;
  const find = async (filter) => (await ask(url, 'runs/search', { experiment_ids: [id], filter, max_results: 1, order_by: ['attributes.start_time DESC'] })).runs[0];
  const row = await find("tags.kind = 'row' and tags.model != ''");
  const model = Object.fromEntries(row.data.tags.map((tag) => [tag.key, tag.value])).model;
  const [registered, version] = model.split('/');
  const runs = `${url}/#/experiments/${id}/runs`;
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  const page = await browser.newPage({ viewport: SIZE, deviceScaleFactor: 1 });
  page.setDefaultTimeout(PATIENCE);
  await page.goto(runs, { waitUntil: 'load', timeout: PATIENCE });
  await page.waitForTimeout(4000);
  await tidy(page);
  await page.waitForTimeout(2000);
  await shoot(page, 'mlflow-runs', `${runs}?viewStateShareKey=rows`, ['layer_speedup', row.info.run_name], WIDE);
  await shoot(page, 'mlflow-charts', `${runs}?viewStateShareKey=rows&compareRunsMode=CHART`, ['exit_score']);
  await shoot(page, 'mlflow-run', `${runs}/${row.info.run_id}`, [row.info.run_name, 'layer_speedup']);
  await shoot(page, 'mlflow-model', `${url}/#/models/${registered}/versions/${version}`, [registered]);
  await shoot(page, 'report', `file://${resolve('outputs/report/index.html')}`, ['Does early exit pay here?']);
  await browser.close();
} finally {
  process.kill(-server.pid);
}
