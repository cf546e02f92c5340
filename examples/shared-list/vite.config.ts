import { defineConfig } from 'vite';
import { example } from '../shared/vite.ts';

export default defineConfig(example(5177));
