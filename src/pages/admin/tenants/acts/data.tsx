// Acts on where a tenant's rows are: moves, backups, restores and imports.
import * as z from "zod";
import {
  type RestoreRequest,
  cancelBackup,
  cancelImport,
  cancelRestore,
  startBackup,
  startImportOf,
  startRestore,
} from "../../../../backups/api.ts";
import { strategies } from "../../../../core/plans/plans.ts";
import { BadRequest } from "../../../../http.ts";
import { MoveRequest, confirmMove, startMove, undoMove } from "../../../../moves/api.ts";
import { Field, Select } from "../../../parts/form.tsx";
import { type Act, act } from "./act.tsx";

const nothing = z.object({});
const next = "/data";

export const move = act({
  ...{ path: "move", action: "startMove", role: "admin", title: "Move the rows" },
  text: "Tollgate copies the rows while the tenant works, then pauses its calls for a moment and switches. The old copy stays until you confirm the move, so that it can be undone.",
  label: "Start the move",
  schema: MoveRequest,
  fields: ({ entered, errors }, tenant) => (
    <>
      <Select
        label="To"
        name="strategy"
        value={entered["strategy"] ?? tenant.strategy}
        options={[
          { value: "shared", text: "Shared tables" },
          { value: "schema", text: "A schema of its own" },
          { value: "database", text: "A database of its own" },
        ].filter(({ value }) => strategies.some((strategy) => strategy === value))}
      />
      <Field
        label="Shard"
        name="shard"
        value={entered["shard"]}
        autocomplete="off"
        error={errors["shard"]}
        hint="Empty: any shard with room in the tenant's region."
      />
    </>
  ),
  run: (c, body) => startMove(c, { body }),
  done: "The move has begun.",
  next,
});

export const confirm = act({
  ...{ path: "move/confirm", action: "confirmMove", role: "admin", title: "Confirm the move", tone: "bad" },
  text: "Deletes the old copy of the rows. The move cannot be undone any more.",
  schema: nothing,
  run: (c) => confirmMove(c),
  done: "The move is confirmed.",
  next,
});

export const undo = act({
  ...{ path: "move/undo", action: "undoMove", role: "admin", title: "Undo the move", tone: "bad" },
  text: "After the switch, Tollgate copies the changes back and switches again. Before the switch, the move ends.",
  schema: nothing,
  run: (c) => undoMove(c),
  done: "The move is being undone.",
  next,
});

const Moment = z.iso.datetime({ offset: true, error: "must be an instant such as 2026-11-28T10:00:00Z" });

export const backup = act({
  ...{ path: "backup", action: "startBackup", role: "support", title: "Back up" },
  text: "Writes the tenant's rows and documents into one file in the bucket, while the tenant works.",
  label: "Start the backup",
  schema: z.object({ at: Moment.optional() }),
  fields: ({ entered, errors }) => (
    <Field
      label="As of"
      name="at"
      value={entered["at"]}
      placeholder="2026-11-28T10:00:00Z"
      autocomplete="off"
      error={errors["at"]}
      hint="Empty: now."
    />
  ),
  run: (c, body) => startBackup(c, { body }),
  done: "The backup has begun.",
  next,
});

export const stopBackup = act({
  ...{ path: "backups/:name/cancel", action: "cancelBackup", role: "support", title: "Cancel the backup", tone: "bad" },
  text: "A restore that waits for this backup fails.",
  schema: nothing,
  run: (c) => cancelBackup(c),
  done: "The backup is cancelled.",
  next,
});

export const restore = act({
  ...{ path: "restore", action: "startRestore", role: "admin", title: "Restore", tone: "bad" },
  text: "Replaces the tenant's rows with those of a backup or of an instant. Tollgate first makes a backup of the current rows.",
  label: "Start the restore",
  schema: z.object({ backup: z.string().max(101).optional(), at: Moment.optional() }),
  fields: ({ entered, errors }) => (
    <>
      <Field
        label="Backup"
        name="backup"
        value={entered["backup"]}
        autocomplete="off"
        error={errors["backup"]}
        hint="The name of a file of the list."
      />
      <Field
        label="Or an instant"
        name="at"
        value={entered["at"]}
        placeholder="2026-11-28T10:00:00Z"
        autocomplete="off"
        error={errors["at"]}
      />
    </>
  ),
  run: (c, { backup: name, at }) => startRestore(c, { body: restoreFrom(name, at) }),
  done: "The restore has begun.",
  next,
});

/** Throws `bad_request` unless one of them is given. */
function restoreFrom(name: string | undefined, at: string | undefined): z.output<typeof RestoreRequest> {
  if (name !== undefined && at === undefined) return { backup: name };
  if (at !== undefined && name === undefined) return { at };
  throw new BadRequest("Name a backup or an instant.");
}

export const stopRestore = act({
  ...{ path: "restore/cancel", action: "cancelRestore", role: "support", title: "Cancel the restore", tone: "bad" },
  text: "You can cancel a restore until it begins to replace rows.",
  schema: nothing,
  run: (c) => cancelRestore(c),
  done: "The restore is cancelled.",
  next,
});

export const load = act({
  ...{ path: "import", action: "startImport", role: "admin", title: "Import" },
  text: "Imports a file of the bucket of backups in the background. Send a file from elsewhere to the API.",
  label: "Start the import",
  schema: z.object({ importFrom: z.string().min(1).max(1_000) }),
  fields: ({ entered, errors }) => (
    <Field
      label="File"
      name="importFrom"
      value={entered["importFrom"]}
      isRequired
      autocomplete="off"
      error={errors["importFrom"]}
    />
  ),
  run: (c, { importFrom }) => startImportOf(c, { importFrom, overwrite: false }),
  done: "The import has begun.",
  next,
});

export const stopImport = act({
  ...{ path: "import/cancel", action: "cancelImport", role: "support", title: "Cancel the import", tone: "bad" },
  text: "Tollgate keeps the lines that it has imported.",
  schema: nothing,
  run: (c) => cancelImport(c),
  done: "The import is cancelled.",
  next,
});

export const dataActs: readonly Act[] = [
  ...[move, confirm, undo, backup, stopBackup, restore, stopRestore, load, stopImport],
];
