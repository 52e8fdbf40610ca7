// Messages of one conversation: order, duplicates, what became of each. Pure.

export type MessageState = 'uploading' | 'queued' | 'sending' | 'sent' | 'delivered' | 'failed' | 'received';

export interface Message {
  id: string;
  mine: boolean;
  body: string;
  at: Date;
  state: MessageState;
  /** The name of a message that came out of the archive, there. */
  archiveId?: string;
  /** The link of a file, when the message is nothing else. */
  file?: string;
  /** How much of the file is uploaded, from 0 to 1. */
  progress?: number;
}

const RANK: Record<MessageState, number> = { failed: -1, uploading: 0, queued: 0, sending: 1, sent: 2, delivered: 3, received: 3 };

/**
 * Where a message belongs: in the order of arrival, but one that was stored while we were away goes before the messages
 * that are younger than it.
 */
export function insertAt(messages: readonly Message[], message: Message, stored: boolean): number {
  let index = messages.length;
  if (stored) while (index > 0 && (messages[index - 1]?.at ?? message.at) > message.at) index -= 1;
  return index;
}

/** Whether a message of the other side is here already: sent again after a lost connection. */
export function isRepeat(messages: readonly Message[], id: string): boolean {
  return id !== '' && messages.slice(-200).some((message) => !message.mine && message.id === id);
}

/**
 * Puts a page of the archive, oldest first, among messages of which some may be of it: sent from here, or come live.
 * `next` is the archive's name of the message after the page. Times alone would not do: several messages share one.
 */
export function merge(messages: Message[], page: readonly Message[], next: string): void {
  let limit = next ? messages.findIndex((message) => message.archiveId === next) : -1;
  if (limit < 0) limit = messages.length;
  for (const past of page.toReversed()) {
    const known = messages.findIndex((message) => message.mine === past.mine && message.id === past.id);
    if (known >= 0) {
      limit = Math.min(limit, known);
    } else {
      limit = Math.min(insertAt(messages, past, true), limit);
      messages.splice(limit, 0, past);
    }
  }
}

/** A message's state only moves forward, except that a lost connection puts an unconfirmed one back in the queue. */
export function advance(current: MessageState, next: MessageState): MessageState {
  if (next === 'queued') return current === 'sending' ? 'queued' : current;
  if (next === 'failed') return current === 'delivered' ? current : 'failed';
  return RANK[next] > RANK[current] ? next : current;
}

export interface Day {
  key: string;
  date: Date;
  messages: Message[];
}

/** Consecutive messages of one calendar day, in this device's time zone. */
export function byDay(messages: readonly Message[]): Day[] {
  const days: Day[] = [];
  for (const message of messages) {
    const key = `${message.at.getFullYear()}-${message.at.getMonth() + 1}-${message.at.getDate()}`;
    const last = days.at(-1);
    if (last?.key === key) last.messages.push(message);
    else days.push({ key, date: message.at, messages: [message] });
  }
  return days;
}
