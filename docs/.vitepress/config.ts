// The site of this folder: `npm run docs` serves it, `npm run docs:build` builds it.

import { defineConfig } from 'vitepress';

const START = [
  { text: 'From a clone', link: '/start/clone' },
  { text: 'Plain TypeScript', link: '/start/plain' },
  { text: 'React', link: '/start/react' },
  { text: 'Vue', link: '/start/vue' },
  { text: 'Svelte', link: '/start/svelte' },
  { text: 'Solid', link: '/start/solid' },
  { text: 'Next.js', link: '/start/next' },
];

const USE = [
  { text: 'Using it', link: '/using' },
  { text: 'Concepts', link: '/concepts' },
  { text: 'Hooks', link: '/hooks' },
  { text: 'Events, commands, workflows', link: '/events' },
  { text: 'Presence', link: '/presence' },
  { text: 'Cookbook', link: '/cookbook' },
  { text: 'Migrations', link: '/migrations' },
  { text: 'While developing', link: '/developing' },
  { text: 'Testing', link: '/testing' },
  { text: 'In Node', link: '/node' },
  { text: 'In Rust', link: '/rust' },
  { text: 'Command line', link: '/commands' },
  { text: 'Rendering on a server', link: '/ssr' },
];

const LOOK_UP = [
  { text: 'Limits', link: '/limits' },
  { text: 'Mistakes', link: '/mistakes' },
  { text: 'Errors', link: '/errors' },
  { text: 'Operating Tidelog', link: '/operating' },
  { text: 'Where the time goes', link: '/speed' },
];

/** What is code in the text is no template of Vue's, which looks for braces in it. */
const asItIs = (md) => {
  const written = md.renderer.rules.code_inline;
  md.renderer.rules.code_inline = (...args) => written(...args).replace('<code', '<code v-pre');
};

export default defineConfig({
  title: 'Tidelog',
  description: 'A SQL database in the browser: shared by every tab, offline, synced.',
  cleanUrls: true,
  srcExclude: ['README.md'],
  // Addresses of a reader's own machine lead nowhere from here.
  ignoreDeadLinks: 'localhostLinks',
  markdown: { config: asItIs },
  themeConfig: {
    nav: [
      { text: 'Start', link: '/start/plain' },
      { text: 'Concepts', link: '/concepts' },
      { text: 'Cookbook', link: '/cookbook' },
      { text: 'Errors', link: '/errors' },
    ],
    sidebar: [
      { text: 'Start', items: START },
      { text: 'Use', items: USE },
      { text: 'Look up', items: LOOK_UP },
    ],
    outline: [2, 3],
    search: { provider: 'local' },
  },
});
