import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import en, { type Key } from '../src/lang/en';
import ko from '../src/lang/ko';
import { fill, pickLanguage } from '../src/lib/language';

const places = (text: string) => [...text.matchAll(/\{\w+\}/g)].map((match) => match[0]).sort();

describe('texts', () => {
  it('have the same keys and places in both languages', () => {
    expect(Object.keys(ko).sort()).toEqual(Object.keys(en).sort());
    for (const key of Object.keys(en) as Key[]) expect(places(ko[key]), key).toEqual(places(en[key]));
  });

  it('are all used', () => {
    const files = readdirSync(join(__dirname, '../src'), { recursive: true, withFileTypes: true });
    const source = files
      .filter((file) => file.isFile() && /\.(ts|svelte)$/.test(file.name) && !file.parentPath.endsWith('lang'))
      .map((file) => readFileSync(join(file.parentPath, file.name), 'utf8'))
      .join('\n');
    // Keys that are put together from a prefix and a code.
    const made = /^(error|meetingError|device)\.|^presence\.(available|away|dnd|offline)$|^chat\.(uploading|queued|sending|sent|delivered|failed)$|^discovery\.\w+Tag$|^meeting\.(connect|reconnect)/;
    const unused = Object.keys(en).filter((key) => !source.includes(`'${key}'`) && !made.test(key));
    expect(unused).toEqual([]);
  });
});

describe('pickLanguage', () => {
  it('prefers the saved choice, then the browser, then English', () => {
    expect(pickLanguage('ko', ['en-GB'])).toBe('ko');
    expect(pickLanguage(null, ['de-DE', 'ko-KR', 'en'])).toBe('ko');
    expect(pickLanguage('fr', ['EN-us'])).toBe('en');
    expect(pickLanguage(null, [])).toBe('en');
  });
});

it('fill leaves unknown places visible', () => {
  expect(fill('{a} and {b}', { a: 0 })).toBe('0 and {b}');
});
