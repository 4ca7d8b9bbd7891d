// qworker: a script for each item, found by its name.

class QWorker {
  constructor(exported) {
    if (exported !== undefined && typeof exported !== 'function') throw new Error(`${options.module} exports no function: a script of qworker does`);
    this.script = exported;
    this.takesAnything = this.takesNothing = exported !== undefined; // then the body is the payload
  }

  start() {
    markReady();
  }

  handle(item, body) {
    const job = this.script ? { payload: body } : body;
    if (!this.script && (typeof job.script !== 'string' || !job.script)) return item.fail(new Error('the body names no script: {"script":"name","payload":...}'), false);
    if (job.eval !== undefined && !options.allow_eval) return item.fail(new Error('the item brings source text, which this pool does not allow (allow_eval)'), false);
    const run = this.script || (job.eval === undefined ? scriptOf(job.script) : evaluate(job.eval));
    const callback = (err, result) => {
      if (!item.open()) return;
      if (err) failed(item, asError(err));
      else item.done(result);
    };
    watch(item, run(job.payload, callback));
  }

  lockOf(body) {
    return this.script ? undefined : body.lockfile;
  }

  ended() {}

  release() {}

  stop() {
    return [];
  }

  dying() {}

  errorReply(err) {
    const { message, stack, code } = asError(err);
    return { error: { ...err, message, stack, code } };
  }
}

const scriptDir = path.resolve(cwd, options.script_dir || '.');

// scriptOf loads a script; Node.js keeps what has loaded, and tries again what has not.
function scriptOf(name) {
  const file = requireFrom.resolve(path.resolve(scriptDir, name));
  if (options.confine) confine(name, file);
  const script = requireFrom(file);
  if (typeof script !== 'function') throw new Error(`script ${name} exports no function`);
  return script;
}

function confine(name, file) {
  const dir = fs.realpathSync(scriptDir) + path.sep;
  if (!fs.realpathSync(file).startsWith(dir)) throw new Error(`script ${name} is outside the script directory, which this pool does not allow (confine)`);
}

function evaluate(text) {
  let script;
  try {
    script = vm.compileFunction(`let runner; runner = ${text}\n; return runner;`, ['require'], { filename: 'eval' })(requireFrom);
  } catch (err) {
    throw new Error(`qworker eval error: ${textOf(err)}`);
  }
  if (typeof script !== 'function') throw new Error('qworker eval error: the source text is no function');
  return script;
}
