// The routes of the public pages, and of the files that all pages load.
import { AnyQuery, type Route, route } from "../../http.ts";
import { StatusQuery } from "../../subscriptions/api.ts";
import { showAsset } from "../assets/assets.ts";
import { findOrganisation } from "../sign-in/sign-in.tsx";
import { showCheckout, submitFirstKey, submitOwner } from "./checkout.tsx";
import { showDoc, showDocs, showLlms } from "./docs.tsx";
import { showHealthPage } from "./health.tsx";
import { showHome } from "./home.tsx";
import { SignUpQuery, showSignUp, submitSignUp } from "./sign-up.tsx";

// oxfmt-ignore
export const publicRoutes: readonly Route[] = [
  route("GET /", "public", showHome, { action: "showHome" }),
  route("GET /assets/:file", "public", showAsset, { action: "showAsset" }),
  route("GET /status", "public", showHealthPage, { query: AnyQuery, isPage: true, action: "showStatusPage" }),
  route("GET /docs", "public", showDocs, { action: "showDocs" }),
  route("GET /docs/:page", "public", showDoc, { isPage: true, action: "showDoc" }),
  route("GET /llms.txt", "public", showLlms, { action: "showLlms" }),

  // a person whose organisation has its own provider
  route("POST /sign-in", "public", findOrganisation, { readsBody: true, isPage: true, rate: "address", action: "findOrganisation", notAudited: "It finds a provider, and changes nothing." }),

  // a buyer
  route("GET /sign-up", "public", showSignUp, { query: SignUpQuery, isPage: true, action: "showSignUp" }),
  route("POST /sign-up", "public", submitSignUp, { readsBody: true, isPage: true, rate: "address", action: "submitSignUp" }),
  route("GET /checkout/:tenantId", "status", showCheckout, { query: StatusQuery, isPage: true, rate: "address", action: "showCheckout" }),
  route("POST /checkout/:tenantId/key", "buyer", submitFirstKey, { readsBody: true, isPage: true, rate: "address", action: "submitFirstKey" }),
  route("POST /checkout/:tenantId/owner", "buyer", submitOwner, { readsBody: true, isPage: true, rate: "address", action: "submitOwner" }),
];
