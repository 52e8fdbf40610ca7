// Names what went wrong when the browser did not give a microphone or camera (Media Capture and Streams, getUserMedia).

export type DeviceProblem = 'denied' | 'missing' | 'busy' | 'insecure' | 'failed' | 'noMic' | 'noCamera';

const NAMES: Record<string, DeviceProblem> = {
  NotAllowedError: 'denied',
  PermissionDeniedError: 'denied',
  NotFoundError: 'missing',
  OverconstrainedError: 'missing',
  NotReadableError: 'busy',
  AbortError: 'busy',
  SecurityError: 'insecure',
};

export function deviceProblem(error: unknown): DeviceProblem {
  return (error instanceof Error && NAMES[error.name]) || 'failed';
}
