// The form that uploads a document, and what a browser sends with it.
import type { FC } from "hono/jsx";
import { MAX_DOCUMENT_BYTES, MAX_PATH_BYTES } from "../../../core/text/document-path.ts";
import type { HttpContext } from "../../../http.ts";
import { type RefusedForm, readMultipart } from "../../layout/form-body.ts";
import { Checks, Field } from "../../parts/form.tsx";

/** Larger than any document, so that the page itself refuses most files that are too large, with what was entered. */
export const MAX_FORM_BYTES = 8 * 1024 * 1024;

interface UploadProps {
  action: string;
  folder: string;
  refused: RefusedForm | undefined;
}

export const UploadForm: FC<UploadProps> = ({ action, folder, refused }) => {
  const { entered = {}, errors = {} } = refused ?? {};
  return (
    <form method="post" action={action} enctype="multipart/form-data" class="sheet">
      <h2>Upload</h2>
      <input type="hidden" name="in" value={folder} />
      <Field
        label="File"
        name="file"
        type="file"
        error={errors["file"]}
        hint={`At most ${MAX_DOCUMENT_BYTES / 1024} KiB. An agent can read a text in UTF-8.`}
        isRequired
      />
      <Field
        label={folder === "" ? "Name" : `Name in ${folder}`}
        name="name"
        value={entered["name"]}
        error={errors["path"]}
        maxLength={MAX_PATH_BYTES}
        hint="Leave it empty to keep the file's own name. With / it is in a folder."
        autocomplete="off"
      />
      <Checks
        legend="If there is a document of this name"
        name="replace"
        options={[{ value: "yes", text: "Replace it" }]}
        values={entered["replace"] === undefined ? [] : ["yes"]}
      />
      <div class="actions">
        <button class="main">Upload</button>
      </div>
    </form>
  );
};

interface Upload {
  folder: string;
  /** `undefined`: no file was chosen. */
  file: File | undefined;
  name: string;
  replace: boolean;
}

/** The form as it was sent. Throws `BadRequest` when it is not one of a browser. */
export async function readUpload(c: HttpContext): Promise<Upload> {
  const { fields, file } = await readMultipart(c);
  const textOf = (field: string): string => {
    const value = fields.get(field);
    return typeof value === "string" ? value.trim() : "";
  };
  return {
    ...{ folder: textOf("in"), name: textOf("name"), replace: fields.get("replace") === "yes" },
    file: file && named(file),
  };
}

/** Browsers write a quotation mark of a name as `%22` in the form. */
function named(file: File): File {
  return new File([file], file.name.replaceAll("%22", '"'), { type: file.type });
}
