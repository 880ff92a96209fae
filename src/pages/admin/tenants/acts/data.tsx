// Acts on where a tenant's rows are: moves and backups.
import * as z from "zod";
import { cancelBackup, startBackup } from "../../../../backups/api.ts";
import { strategies } from "../../../../core/plans/plans.ts";
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

export const Moment = z.iso.datetime({ offset: true, error: "must be an instant such as 2026-11-28T10:00:00Z" });

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

export const dataActs: readonly Act[] = [move, confirm, undo, backup, stopBackup];
