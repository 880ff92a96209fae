// The routes of the public pages, and of the files that all pages load.
import { type Route, route } from "../../http.ts";
import { showAsset } from "../assets/assets.ts";

export const publicRoutes: readonly Route[] = [
  route("GET /assets/:file", "public", showAsset, { action: "showAsset" }),
];
