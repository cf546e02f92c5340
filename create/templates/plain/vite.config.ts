import { tidelog } from 'tidelog/vite';
import { defineConfig } from 'vite';

export default defineConfig({ plugins: [tidelog()] });
