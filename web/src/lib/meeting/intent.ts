// A passcode typed on one screen for the meeting opened on the next: kept out of the address bar and the history.
let held: { callId: string; passcode: string } | null = null;

export function holdPasscode(callId: string, passcode: string): void {
  held = { callId, passcode };
}

/** The passcode held for this call ID; empty when there is none. */
export const heldPasscode = (callId: string): string => (held?.callId === callId ? held.passcode : '');
