/** People and programs with a name and a password. */
import { z } from "zod";
import { ForbiddenError } from "../errors.ts";
import { passwordHashSchema } from "./password.ts";
import { type Role, roleSchema } from "./permission.ts";

export const userNameSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, "must be 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit");

export const userSchema = z.object({
  name: userNameSchema,
  role: roleSchema,
  passwordHash: passwordHashSchema,
  /** Milliseconds since the epoch, as all times of these records. */
  createdAt: z.number(),
  disabled: z.boolean(),
});
/** As kept in the register; never shown as it is: `publicUser`. */
export type User = z.output<typeof userSchema>;

export function createUser(options: { name: string; role: Role; passwordHash: string; nowMs: number }): User {
  return {
    name: userNameSchema.parse(options.name),
    role: options.role,
    passwordHash: options.passwordHash,
    createdAt: options.nowMs,
    disabled: false,
  };
}

/** Without the hash. */
export function publicUser(user: User): Omit<User, "passwordHash"> {
  const { passwordHash: _, ...shown } = user;
  return shown;
}

/** @throws {ForbiddenError} the user was disabled. */
export function requireEnabled(user: User): void {
  if (user.disabled) throw new ForbiddenError("this user is disabled; ask an administrator");
}
