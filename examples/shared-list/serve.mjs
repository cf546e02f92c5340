// Starts a server that knows its three users, deploys the list's doctype there, and serves the page.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const program = path.join(root, 'target/release/tidelog');
const given = (name, otherwise) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : process.argv[at + 1];
};
const listen = given('--listen', '127.0.0.1:8788');
const data = given('--data', path.join(root, '.tidelog-shared-list'));
const address = `http://${listen}`;

if (!existsSync(program) || !existsSync(path.join(here, 'dist'))) {
  console.error(
    'Build it first: npm run build in the root of the repository, and npm run build here.',
  );
  process.exit(1);
}

/** For trying it on this machine; set your own in the environment. */
const passwords = Object.fromEntries(
  ['admin', 'writer', 'reader'].map((user) => {
    const variable = `TIDELOG_${user.toUpperCase()}_PASSWORD`;
    return [variable, process.env[variable] ?? user];
  }),
);

const args = ['serve', '--data', data, '--listen', listen, '--serve', path.join(root, 'examples')];
const env = { RUST_LOG: 'warn', ...process.env, ...passwords };
const server = spawn(program, args, { env, stdio: 'inherit' });
server.on('exit', (code) => process.exit(code ?? 1));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => server.kill(signal));

for (let tries = 0; ; tries++) {
  const answer = await fetch(`${address}/healthz`).catch(() => undefined);
  if (answer?.ok) break;
  if (tries > 100) throw new Error('the server does not answer');
  await new Promise((resolve) => setTimeout(resolve, 50));
}

const body = JSON.stringify({ user: 'admin', password: passwords.TIDELOG_ADMIN_PASSWORD });
const { token } = await (await fetch(`${address}/v1/login`, { method: 'POST', body })).json();
const package_ = path.join(root, 'js/bin/tidelog.mjs');
const extracted = run(process.execPath, [package_, 'extract', path.join(here, 'src/doctype.ts')]);
run(program, ['deploy', '-', '--server', address], { input: extracted, TIDELOG_TOKEN: token });
console.log(`\n    ${address}/shared-list/\n`);
console.log('    admin, writer and reader may log in; each one’s password is its name');
console.log(`    unless the environment says another one. What was written stays in ${data}\n`);

function run(command, args, { input, ...variables } = {}) {
  const env = { ...process.env, ...variables };
  const { status, stdout, stderr } = spawnSync(command, args, { input, env, encoding: 'utf8' });
  if (status === 0) return stdout;
  server.kill();
  throw new Error(stderr || `${command} ended with ${status}`);
}
