// Builds the app into the Python package, from where the portal serves it. No inline script: the policy forbids it.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import { licenses } from './licenses.ts';

export default defineConfig({
  plugins: [svelte(), licenses()],
  build: {
    outDir: '../src/moim/portal/static',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  test: { include: ['tests/**/*.test.ts'], environment: 'node' },
});
