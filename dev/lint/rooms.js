// The lint rule `rooms/order`: a file under src imports only from its own room and from the rooms above it. The order
// stands once, as the rule's option in .oxlintrc.json. An entry of the order is a folder or a file directly under src.
// Type imports count: a type that two rooms need belongs to the upper one.
import { dirname, join, relative, sep } from "node:path";

/** The entry of the order that a path under src belongs to, such as `core` or `http.ts`. */
const roomOf = (path) => path.split("/")[0];

const order = {
  meta: {
    type: "problem",
    schema: [
      {
        type: "object",
        properties: {
          order: { type: "array", items: { type: "string" } },
          // Upward imports that still stand, as `room/file.ts -> room/file.ts`.
          exceptions: { type: "array", items: { type: "string" } },
        },
        required: ["order"],
        additionalProperties: false,
      },
    ],
  },
  create(context) {
    const root = context.cwd;
    const [{ order: rooms, exceptions = [] }] = context.options;
    const file = relative(join(root, "src"), context.filename).split(sep).join("/");
    if (file.startsWith("..")) return {};
    const place = rooms.indexOf(roomOf(file));

    const check = (source) => {
      if (typeof source?.value !== "string" || !source.value.startsWith(".")) return;
      const target = join(dirname(file), source.value).split(sep).join("/");
      if (target.startsWith("..") || exceptions.includes(`${file} -> ${target}`)) return;
      const targetPlace = rooms.indexOf(roomOf(target));
      if (targetPlace >= 0 && targetPlace <= place) return;
      const message =
        targetPlace < 0
          ? `${roomOf(target)} has no place in the order of rooms (.oxlintrc.json).`
          : `${roomOf(file)} imports upward from ${roomOf(target)}. Move what both need to ${roomOf(file)} or above.`;
      context.report({ node: source, message });
    };

    return {
      Program(node) {
        if (place < 0)
          context.report({ node, message: `${roomOf(file)} has no place in the order of rooms (.oxlintrc.json).` });
      },
      ImportDeclaration: ({ source }) => check(source),
      ExportNamedDeclaration: ({ source }) => check(source),
      ExportAllDeclaration: ({ source }) => check(source),
      ImportExpression: ({ source }) => check(source),
    };
  },
};

// oxlint loads a plugin by its default export.
export default { meta: { name: "rooms" }, rules: { order } };
