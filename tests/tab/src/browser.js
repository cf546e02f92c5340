/** Imports modules that have no files: each is a URL, by which those after it import it. */
export async function importModules(names, sources) {
  const urls = new Map();
  for (const [index, source] of sources.entries()) {
    const linked = source.replaceAll(/(?<=from ')\.\/([\w.-]+)(?=')/g, (_, name) => urls.get(name));
    const url = URL.createObjectURL(new Blob([linked], { type: 'text/javascript' }));
    await import(url);
    urls.set(names[index], url);
  }
}
