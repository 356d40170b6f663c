// Python in a worker: it lends ggufext the files that were chosen, and hands on what planner.py answers.

const PIECE = 2 ** 18;
// As planner.py says it.
let mostRead;
let python;
let planner;
let chosen = [];

/** A file of which only what is asked for is read, in pieces, each once, and never more than mostRead bytes. */
class LentFile {
  constructor(file) {
    this.file = file;
    this.name = file.name;
    this.size = file.size;
    this.lastModifiedDate = new Date(file.lastModified);
    this.pieces = new Map();
    this.read = 0;
    this.refused = false;
    this.reader = new FileReaderSync();
  }

  /** What the file system of Emscripten asks of a file. */
  slice(start, end) {
    const parts = [];
    for (let at = start; at < Math.min(end, this.size); ) {
      const number = Math.floor(at / PIECE);
      const stop = Math.min(end, (number + 1) * PIECE);
      parts.push(this.piece(number).subarray(at - number * PIECE, stop - number * PIECE));
      at = stop;
    }
    return new Blob(parts);
  }

  piece(number) {
    const known = this.pieces.get(number);
    if (known) return known;
    const start = number * PIECE;
    const end = Math.min(start + PIECE, this.size);
    if (this.read + end - start > mostRead) {
      this.refused = true;
      throw new python.FS.ErrnoError(python.ERRNO_CODES.EFBIG);
    }
    let content;
    try {
      content = new Uint8Array(this.reader.readAsArrayBuffer(this.file.slice(start, end)));
    } catch {
      throw new python.FS.ErrnoError(python.ERRNO_CODES.EIO); // gone, or not to be read
    }
    this.read += content.length;
    this.pieces.set(number, content);
    tell(`Reading ${this.name}: ${megabytes(this.read)}`);
    return content;
  }
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const tell = (progress) => postMessage({ progress });

async function start() {
  tell("Loading Python, 13 MB");
  const { loadPyodide } = await import("./pyodide/pyodide.mjs");
  const archive = fetch(new URL("ggufext.zip", import.meta.url)).then((answer) => answer.arrayBuffer());
  python = await loadPyodide({ indexURL: new URL("pyodide/", import.meta.url).href });
  tell("Loading ggufext");
  python.unpackArchive(await archive, "zip", { extractDir: "/ggufext" });
  python.runPython("import sys; sys.path.insert(0, '/ggufext')");
  planner = python.pyimport("planner");
  mostRead = planner.MOST_READ;
  python.FS.mkdir("/model");
  postMessage({ ready: true });
}

function lend(files) {
  if (chosen.length) {
    python.FS.chdir("/");
    python.FS.unmount("/model");
  }
  chosen = files.map((file) => new LentFile(file));
  python.FS.mount(python.FS.filesystems.WORKERFS, { files: chosen }, "/model");
  python.FS.chdir("/model");
}

function plan({ files, target, memory }) {
  if (files) lend(files);
  const refused = () => chosen.some((file) => file.refused);
  const answer = planner.answer(chosen[0].name, target, memory, refused);
  const read = chosen.reduce((sum, file) => sum + file.read, 0);
  postMessage({ answer: JSON.parse(answer), read });
}

const started = start();
onmessage = async ({ data }) => {
  try {
    await started;
    plan(data);
  } catch (error) {
    postMessage({ failed: String(error) });
  }
};
started.catch((error) => postMessage({ failed: String(error) }));
