/** Signing in, staying signed in, signing out. */
import { z } from "zod";
import { openCall } from "./call.ts";

export const credentialsSchema = z.strictObject({
  username: z.string().min(1).max(64),
  password: z.string().min(1).max(256),
});
export const refreshTokenSchema = z.strictObject({ refreshToken: z.string().min(1).max(256) });

export const signIn = openCall({
  access: "open",
  input: credentialsSchema,
  run: ({ ground, address }, { username, password }) =>
    ground.loginLimits.attempt(address, username, () => ground.backend.accounts.login(username, password)),
});

export const refreshSignIn = openCall({
  access: "open",
  input: refreshTokenSchema,
  run: ({ ground }, { refreshToken }) => ground.backend.accounts.refresh(refreshToken),
});

export const signOut = openCall({
  access: "open",
  input: refreshTokenSchema,
  run: ({ ground }, { refreshToken }) => ground.backend.accounts.revoke(refreshToken),
});
