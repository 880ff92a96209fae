// Acts that import rows into a tenant: a file of the bucket, or one that the browser uploads.
import * as z from "zod";
import { cancelImport, startImportOf, storeImport } from "../../../../backups/api.ts";
import { type HttpContext, tenantOf } from "../../../../http.ts";
import { type RefusedForm, attempt, doneAt, noFields, readMultipart } from "../../../layout/form-body.ts";
import { Checks, Field } from "../../../parts/form.tsx";
import { type Act, act, actPage, tenantPath } from "./act.tsx";

const next = "/data";

const Overwrite = ({ chosen }: RefusedForm) => (
  <Checks
    legend="Rows that exist already"
    name="overwrite"
    options={[{ value: "yes", text: "Replace them" }]}
    values={chosen?.["overwrite"] ?? []}
  />
);

const started = "The import has begun.";

export const load = act({
  ...{ path: "import", action: "startImport", role: "admin", title: "Import from the bucket" },
  text: "Imports a file of the bucket of backups in the background.",
  label: "Start the import",
  schema: z.object({ importFrom: z.string().min(1).max(1_000), overwrite: z.literal("yes").optional() }),
  fields: (form) => (
    <>
      <Field
        label="File"
        name="importFrom"
        value={form.entered["importFrom"]}
        isRequired
        autocomplete="off"
        error={form.errors["importFrom"]}
      />
      <Overwrite {...form} />
    </>
  ),
  run: (c, { importFrom, overwrite }) => startImportOf(c, { importFrom, overwrite: overwrite === "yes" }),
  done: started,
  next,
});

/** A form is in memory as a whole. */
const MAX_UPLOAD_BYTES = 32 * 1024 * 1024;

const uploadPage = {
  title: "Upload an import",
  text: `Imports a file of lines of JSON in the background. It has at most ${MAX_UPLOAD_BYTES / 1024 / 1024} MiB. Send a larger one to the API.`,
  label: "Start the import",
  fields: (form: RefusedForm) => (
    <>
      <Field label="File" name="file" type="file" isRequired error={form.errors["file"]} />
      <Overwrite {...form} />
    </>
  ),
  next,
};

export const upload: Act = {
  ...{ path: "import/upload", action: "startImport", role: "admin", title: uploadPage.title, tone: undefined },
  maxBytes: MAX_UPLOAD_BYTES,
  show: (c) => actPage(c, uploadPage, undefined, true),
  submit: submitUpload,
};

async function submitUpload(c: HttpContext): Promise<Response> {
  const { fields, file } = await readMultipart(c);
  const overwrite = fields.get("overwrite") === "yes";
  const sent = overwrite ? { ...noFields, chosen: { overwrite: ["yes"] } } : noFields;
  const refuse = (refused: RefusedForm): Promise<Response> => actPage(c, uploadPage, refused, true);
  if (file === undefined || file.size === 0) return refuse({ ...sent, errors: { file: "Choose a file with lines." } });
  const done = await attempt(
    c,
    async () => {
      const importFrom = await storeImport(c, new Uint8Array(await file.arrayBuffer()));
      return startImportOf(c, { importFrom, overwrite });
    },
    sent,
  );
  return "refused" in done ? refuse(done.refused) : doneAt(c, tenantPath(tenantOf(c), next), started);
}

export const stopImport = act({
  ...{ path: "import/cancel", action: "cancelImport", role: "support", title: "Cancel the import", tone: "bad" },
  text: "Tollgate keeps the lines that it has imported.",
  schema: z.object({}),
  run: (c) => cancelImport(c),
  done: "The import is cancelled.",
  next,
});

export const importActs: readonly Act[] = [load, upload, stopImport];
