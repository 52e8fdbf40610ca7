import { describe, expect, it } from 'vitest';
import { chatHref, parseRoute } from '../src/lib/route';

describe('parseRoute', () => {
  it('knows meetings by their path', () => {
    expect(parseRoute('/meeting/700100200', '?secret=x', '')).toEqual({ page: 'meeting', callId: '700100200', query: '?secret=x' });
    expect(parseRoute('/meeting/', '', '')).toEqual({ page: 'meeting', callId: '', query: '' });
    expect(parseRoute('/meeting/%E0%A4%A', '', '')).toMatchObject({ callId: '%E0%A4%A' });
  });

  it('knows tabs and conversations by the hash', () => {
    expect(parseRoute('/', '', '')).toEqual({ page: 'home', tab: 'chats', contact: null });
    expect(parseRoute('/', '', '#/meetings')).toEqual({ page: 'home', tab: 'meetings' });
    expect(parseRoute('/', '', '#/nowhere/else')).toEqual({ page: 'home', tab: 'chats', contact: null });
  });

  it('finds back the address that a chat link was made for', () => {
    for (const address of ['bob@moim.test', 'o%b+c/d@moim.test', '보배@moim.test']) {
      const hash = new URL(chatHref(address), 'http://localhost').hash;
      expect(parseRoute('/', '', hash)).toMatchObject({ contact: address.split('/')[0] });
    }
  });
});
