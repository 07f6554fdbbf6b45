/** One line of the REST table: how a call is reached by HTTP. */
import { z } from "zod";
import type { Scope } from "../identity/permission.ts";
import { type Asker, type Call, perform } from "./call.ts";
import type { SentEvent } from "./event-stream.ts";
import { inputError } from "./problem.ts";

export type Method = "get" | "post" | "put" | "delete";

/** What came in, not yet looked at. */
export interface RawRequest {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
  /** Empty when it was not sent. */
  header(name: string): string;
}

type Headers = Readonly<Record<string, string>>;

export type Answer =
  | { readonly kind: "json"; readonly body: unknown; readonly headers?: Headers; readonly status?: number }
  /** Bytes as they are, or no body at all. */
  | {
      readonly kind: "raw";
      readonly body: Uint8Array | null;
      readonly headers: Headers;
      readonly status: number;
    }
  | { readonly kind: "empty" }
  | { readonly kind: "events"; readonly events: AsyncIterable<SentEvent> };

export interface Route {
  readonly method: Method;
  /** With `:name` for parameters. */
  readonly path: string;
  readonly summary: string;
  /** The route is for requests with this query parameter; others go on to the next route of the path. */
  readonly onlyWithQuery?: string | undefined;
  readonly access: Scope | "open";
  readonly params?: z.ZodObject | undefined;
  readonly query?: z.ZodObject | undefined;
  readonly headers?: z.ZodObject | undefined;
  readonly body?: { readonly schema: z.ZodType; readonly bytesMax: number } | undefined;
  /** A body of any type, taken as it is. */
  readonly rawBody?: { readonly bytesMax: number } | undefined;
  /** Of the answer's body; null: none. "events": server-sent events; "raw": what was stored. */
  readonly response: z.ZodType | "events" | "raw" | null;
  readonly status: number;
  /** Parses, then runs the call, which checks the permission once more. */
  answer(asker: Asker, request: RawRequest): Promise<Answer>;
}

const NO_BYTES = new Uint8Array();
const none = z.object({});
type Empty = typeof none;

interface RouteOptions<
  Params extends z.ZodObject,
  Query extends z.ZodObject,
  Headers extends z.ZodObject,
  Body extends z.ZodType,
  Input extends z.ZodType,
  Output,
> {
  readonly call: Call<Input, Output>;
  readonly summary: string;
  readonly onlyWithQuery?: string;
  readonly params?: Params;
  readonly query?: Query;
  /** By lower-case name. */
  readonly headers?: Headers;
  readonly body?: { readonly schema: Body; readonly bytesMax: number };
  readonly rawBody?: { readonly bytesMax: number };
  readonly response: z.ZodType | "events" | "raw" | null;
  readonly status?: number;
  readonly input: (request: {
    params: z.output<Params>;
    query: z.output<Query>;
    headers: z.output<Headers>;
    body: z.output<Body>;
    /** The body of a route with `rawBody`. */
    bytes: Uint8Array;
  }) => z.output<Input>;
  readonly answer: (output: Output) => Answer;
}

export function route<
  Input extends z.ZodType,
  Output,
  Params extends z.ZodObject = Empty,
  Query extends z.ZodObject = Empty,
  Headers extends z.ZodObject = Empty,
  Body extends z.ZodType = z.ZodUnknown,
>(method: Method, path: string, options: RouteOptions<Params, Query, Headers, Body, Input, Output>): Route {
  const { call, params, query, headers, body } = options;
  return {
    method,
    path,
    summary: options.summary,
    onlyWithQuery: options.onlyWithQuery,
    access: call.access,
    params,
    query,
    headers,
    body,
    rawBody: options.rawBody,
    response: options.response,
    status: options.status ?? 200,
    async answer(asker, request) {
      const given = Object.fromEntries(
        Object.keys(headers?.shape ?? {}).flatMap((name) => {
          const value = request.header(name);
          return value === "" ? [] : [[name, value]];
        }),
      );
      const input = options.input({
        params: parse("the path", params, request.params),
        query: parse("the query", query ?? none.strict(), request.query) as z.output<Query>,
        headers: parse("a header", headers, given),
        body: parse("the body", body?.schema, request.body),
        bytes: request.body instanceof Uint8Array ? request.body : NO_BYTES,
      });
      return options.answer(await perform(asker, call, input));
    },
  };
}

/** The body of every list. */
export const listOf = (item: z.ZodType) =>
  z.object({ items: z.array(item), nextCursor: z.string().nullable() });

export const asJson = (body: unknown): Answer => ({ kind: "json", body });
export const asEmpty = (): Answer => ({ kind: "empty" });

/** Without a schema nothing was asked for, and the result is looked at by nobody. */
function parse<Schema extends z.ZodType>(
  what: string,
  schema: Schema | undefined,
  value: unknown,
): z.output<Schema> {
  const parsed = (schema ?? none).safeParse(schema === undefined ? {} : value);
  if (!parsed.success) throw inputError(what, parsed.error);
  return parsed.data as z.output<Schema>;
}
