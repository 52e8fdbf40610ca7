// A build step: collects the licence texts of the packages that end up in the bundle, as their licences ask for.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Plugin } from 'vite';

function section(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Record<string, string>;
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? readFileSync(join(folder, file), 'utf8').trim() : `Licence: ${license}`;
  return `${name} ${version}\n${'-'.repeat(60)}\n${text}\n`;
}

/** Writes `licenses.txt` next to the page. */
export function licenses(): Plugin {
  return {
    name: 'moim-licenses',
    generateBundle(_options, bundle) {
      const folders = new Set<string>();
      for (const chunk of Object.values(bundle)) {
        for (const id of chunk.type === 'chunk' ? chunk.moduleIds : []) {
          const folder = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id.replaceAll('\0', ''))?.[1];
          if (folder && existsSync(join(folder, 'package.json'))) folders.add(folder);
        }
      }
      this.emitFile({ type: 'asset', fileName: 'licenses.txt', source: [...folders].sort().map(section).join('\n\n') });
    },
  };
}
