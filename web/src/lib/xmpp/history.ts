// What was said before this page was opened, out of the account's archive (XEP-0313), a page at a time, newest first.
import { bare } from './jid';
import { readFin, readMessage, readResult, type MessageStanza } from './stanzas';

export interface Past extends MessageStanza {
  /** The other side's bare address. */
  with: string;
  mine: boolean;
  archiveId: string;
  at: Date;
}

export interface PastPage {
  messages: Past[];
  /** Where the next page ends; empty when this one had nothing. */
  oldest: string;
  /** Whether there is nothing before it. */
  complete: boolean;
}

export class History {
  private readonly open = new Map<string, Past[]>();
  private counter = 0;

  /** `ask` sends a query with a name, for messages with an address (or null) before an id, and gives its result. */
  constructor(
    private readonly self: string,
    private readonly ask: (query: string, address: string | null, before: string) => Promise<Element>,
  ) {}

  /** The page of messages with somebody (null: with anybody) before an archive id; '' for the newest ones. */
  async page(address: string | null, before: string): Promise<PastPage> {
    this.counter += 1;
    const query = `h${this.counter}`;
    this.open.set(query, []);
    try {
      const fin = readFin(await this.ask(query, address, before));
      return { messages: this.open.get(query) ?? [], oldest: fin.first, complete: fin.complete };
    } finally {
      this.open.delete(query);
    }
  }

  /** Whether a stanza is a result of a query; only our own account answers ours. */
  take(stanza: Element): boolean {
    const result = readResult(stanza);
    if (!result) return false;
    const from = stanza.getAttribute('from');
    const page = !from || from === this.self ? this.open.get(result.query) : undefined;
    const message = page && result.message && readMessage(result.message);
    if (!page || !message || message.error) return true;
    const mine = bare(message.from) === this.self;
    const other = mine ? result.message?.getAttribute('to') : message.from;
    if (!other || message.body === null) return true;
    page.push({ ...message, with: bare(other), mine, archiveId: result.id, at: result.at ?? new Date() });
    return true;
  }
}
