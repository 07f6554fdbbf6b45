/**
 * Entity tags and the conditions that are made of them (RFC 9110, 8.8.3 and 13.1).
 * A tag is the version of an entry in a form that tells nothing: each write has
 * another one, so all of ours are strong.
 */
import { InvalidInputError } from "../errors.ts";
import type { ValueCondition } from "../node/key-values.ts";

const TAG = /(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/y;
const TAGS_MAX = 32;
/** As ballots and batches number them: what a tag of ours holds. */
const VERSION = /^\d{1,16}\.[0-9a-zA-Z/-]{1,80}(\.\d{1,16}){1,2}$/;
/** Stands for a tag that no entry of ours can have. */
const NO_VERSION = "?";

interface Tag {
  readonly isWeak: boolean;
  readonly version: string;
}

/** With its quotes, as it stands in `ETag`, and is sent back in `If-Match`. */
export function entityTagOf(version: string): string {
  return `"${Buffer.from(version, "latin1").toString("base64url")}"`;
}

/**
 * @param header `*`, or tags in quotes. For `If-Match` weak ones equal nothing.
 * @throws {InvalidInputError} it is neither.
 */
export function ifMatch(header: string): ValueCondition {
  const tags = readTags("If-Match", header);
  if (tags === "*") return { kind: "present" };
  return { kind: "oneOf", versions: tags.map(({ isWeak, version }) => (isWeak ? NO_VERSION : version)) };
}

/** @throws {InvalidInputError} neither `*` nor tags in quotes. */
export function ifNoneMatch(header: string): ValueCondition {
  const tags = readTags("If-None-Match", header);
  if (tags === "*") return { kind: "absent" };
  return { kind: "noneOf", versions: tags.map(({ version }) => version) };
}

/** Whether `condition` holds with an entry of `version` there; undefined: no entry. */
export function holds(condition: ValueCondition, version: string | undefined): boolean {
  switch (condition.kind) {
    case "any":
      return true;
    case "absent":
      return version === undefined;
    case "present":
      return version !== undefined;
    case "oneOf":
      return version !== undefined && condition.versions.includes(version);
    case "noneOf":
      return version === undefined || !condition.versions.includes(version);
  }
}

function readTags(name: string, header: string): "*" | Tag[] {
  const text = header.trim();
  if (text === "*") return "*";
  const tags: Tag[] = [];
  let at = 0;
  do {
    TAG.lastIndex = at;
    const match = TAG.exec(text);
    if (match === null || tags.length === TAGS_MAX) throw malformed(name);
    tags.push({ isWeak: match[1] !== undefined, version: versionOf(match[2] ?? "") });
    at = TAG.lastIndex;
    const separator = /\s*,\s*/y;
    separator.lastIndex = at;
    if (at < text.length && !separator.test(text)) throw malformed(name);
    at = Math.max(at, separator.lastIndex);
  } while (at < text.length);
  return tags;
}

function versionOf(tag: string): string {
  const version = Buffer.from(tag, "base64url").toString("latin1");
  return VERSION.test(version) && entityTagOf(version) === `"${tag}"` ? version : NO_VERSION;
}

function malformed(name: string): InvalidInputError {
  const message = `must be * or the ETag of an earlier answer with its quotes, at most ${TAGS_MAX} of them`;
  return new InvalidInputError(`${name}: ${message}`, [{ path: name, message }]);
}
