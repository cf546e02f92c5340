import { defineConfig, mergeConfig } from 'vite';
import { example } from '../shared/vite.ts';

const pages = ['index.html', 'warehouse.html'];
export default defineConfig(
  mergeConfig(example(5178), { build: { rollupOptions: { input: pages } } }),
);
