import { svelte } from '@sveltejs/vite-plugin-svelte';
import { tidelog } from 'tidelog/vite';
import { defineConfig } from 'vite';

export default defineConfig({ plugins: [svelte(), tidelog()] });
