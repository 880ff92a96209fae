// All families of attacks.
import type { Family } from "../attack.ts";
import { castFamily } from "./casts.ts";
import { catalogueFamily } from "./catalogue.ts";
import { contextFamily } from "./contexts.ts";
import { ddlFamily } from "./ddl.ts";
import { extensionFamily } from "./extensions.ts";
import { fileFamily } from "./files.ts";
import { functionFamily } from "./functions.ts";
import { lockFamily } from "./locks.ts";
import { roleFamily } from "./roles.ts";
import { rowFamily } from "./rows.ts";
import { stackedFamily } from "./stacked.ts";
import { temporaryFamily } from "./temporary.ts";

export const families: readonly Family[] = [
  rowFamily,
  roleFamily,
  contextFamily,
  catalogueFamily,
  temporaryFamily,
  functionFamily,
  castFamily,
  fileFamily,
  extensionFamily,
  lockFamily,
  ddlFamily,
  stackedFamily,
];
