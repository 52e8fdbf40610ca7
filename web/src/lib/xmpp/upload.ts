// Files by XEP-0363: finds the upload service, asks for a slot, and puts the file there.
import { discoInfo, discoItems, slotRequest, type Stanza } from './compose';
import { ownPath } from './files';
import { readItems, readSlot, readUploadLimit } from './stanzas';

export type UploadProblem = 'tooLarge' | 'refused' | 'failed' | 'none';

export class UploadError extends Error {
  constructor(
    readonly problem: UploadProblem,
    readonly limit = 0,
  ) {
    super(problem);
  }
}

type Request = (stanza: Stanza) => Promise<Element>;

export class Uploader {
  private service: Promise<{ address: string; limit: number }> | null = null;

  constructor(
    private readonly domain: string,
    private readonly request: Request,
    private readonly origins: readonly string[],
  ) {}

  /** Uploads a file and gives its link. Raises UploadError. */
  async upload(file: File, onProgress: (share: number) => void): Promise<string> {
    const { address, limit } = await this.find();
    if (file.size > limit) throw new UploadError('tooLarge', limit);
    const named = { name: file.name || 'file', size: file.size, type: file.type };
    const answer = await this.request(slotRequest(address, named)).catch(() => null);
    const slot = answer && readSlot(answer);
    if (!slot) throw new UploadError('refused');
    const path = ownPath(slot.put, this.origins);
    if (!path || !(await put(path, file, onProgress))) throw new UploadError('failed');
    return slot.get;
  }

  private find(): Promise<{ address: string; limit: number }> {
    this.service ??= this.search().catch((error: unknown) => {
      this.service = null;
      throw error;
    });
    return this.service;
  }

  private async search(): Promise<{ address: string; limit: number }> {
    const items = await this.request(discoItems(this.domain)).then(readItems, () => []);
    const asked = items.slice(0, 20).map(async (address) => {
      const limit = await this.request(discoInfo(address)).then(readUploadLimit, () => null);
      return limit === null ? [] : [{ address, limit }];
    });
    const [found] = (await Promise.all(asked)).flat();
    if (!found) throw new UploadError('none');
    return found;
  }
}

/** Puts the bytes; only XMLHttpRequest tells how far it is. */
function put(path: string, file: File, onProgress: (share: number) => void): Promise<boolean> {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open('PUT', path);
    if (file.type) request.setRequestHeader('Content-Type', file.type);
    request.upload.onprogress = (event) => event.total > 0 && onProgress(event.loaded / event.total);
    request.onload = () => resolve(request.status === 201);
    request.onerror = request.onabort = () => resolve(false);
    request.send(file);
  });
}
